"""Ranks that torchrun starts leave the same reports as those of a gang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from runner.execute.boundary import REPORTED_ERROR, report_path
from runner.execute.job import Job
from runner.execute.rank import main
from runner.execute.wire import job_to_json, report_from_json
from runner.vocabulary import Cause, Verdict


def _torchrun(ranks: int, job: Path) -> subprocess.CompletedProcess[bytes]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*torchrun, f"--nproc-per-node={ranks}", "-m", "runner.execute.rank", str(job)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        timeout=120,
    )


def test_torchrun_starts_ranks(tmp_path: Path) -> None:
    job = Job(network="", prepared="", property="", strategy="null", ranks=2, timeout_s=10.0)
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job_to_json(job)))
    assert _torchrun(2, path).returncode == 0
    reports = [json.loads(report_path(tmp_path, rank).read_text()) for rank in range(2)]
    assert [report_from_json(report).rank for report in reports] == [0, 1]


def test_a_job_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text("{")
    assert main(path) == REPORTED_ERROR
    report = report_from_json(json.loads(report_path(tmp_path, 0).read_text()))
    assert (report.verdict, report.cause) == (Verdict.ERROR, Cause.INTERNAL_ERROR)
    assert "JSONDecodeError" in report.message
