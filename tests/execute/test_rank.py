"""A rank without a scheduler reports as one of a gang does, and only in the gang of its job."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.contract.question import Question, Report
from runner.contract.shell import REPORTED, REPORTED_ERROR, report_path
from runner.contract.vocabulary import Cause, Verdict
from runner.contract.wire import question_to_json, report_from_json, to_json
from runner.engine import torchrun as rank_module
from runner.engine.torchrun import main
from runner.execute.gang import GangResult
from runner.verifiers.strategies import strategy_named

pytestmark = pytest.mark.alone

SP = strategy_named("sp")


def _job(folder: Path, ranks: int, strategy: str = "null") -> Path:
    job = Question(
        network="",
        prepared="",
        property="",
        strategy=strategy_named(strategy),
        ranks=ranks,
        timeout_s=10.0,
    )
    path = folder / "job.json"
    path.write_text(json.dumps(question_to_json(job)))
    return path


def _reported(folder: Path, rank: int = 0) -> Report:
    return report_from_json(json.loads(report_path(folder, rank).read_text()))


def test_torchrun_fails_when_it_starts_too_few_ranks(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [
            *torchrun,
            "--nproc-per-node=1",
            "-m",
            "runner.engine.torchrun",
            str(_job(tmp_path, 4)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        timeout=120,
        capture_output=True,
    )
    assert done.returncode != 0
    assert b"the job is for 4 rank(s), but WORLD_SIZE is 1" in done.stderr


@pytest.mark.parametrize("strategy", ["fsdp", "null"])
@pytest.mark.parametrize(
    ("ranks", "rank", "size"), [(4, None, None), (4, "0", "1"), (2, "1", "3"), (1, "0", "2")]
)
def test_a_gang_of_another_size_than_the_job_says_is_an_error_before_anything_is_computed(
    ranks: int,
    rank: str | None,
    size: str | None,
    strategy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", size)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert main(_job(tmp_path, ranks, strategy)) == REPORTED_ERROR
    report = _reported(tmp_path, int(rank or 0))
    assert (report.verdict, report.cause) == (Verdict.ERROR, Cause.GANG_MISMATCH)
    assert f"for {ranks} rank(s), but WORLD_SIZE is {size or 1}" in report.message
    assert f"start {ranks} on all machines" in report.message
    assert f"--ranks {size or 1}" in report.message


@pytest.mark.parametrize(
    ("rank", "size", "words"),
    [
        ("4", "4", "RANK is 4, WORLD_SIZE is 4: ranks count from 0"),
        ("-1", "4", "RANK is -1"),
        ("one", "4", "RANK is one, WORLD_SIZE is 4: both must be numbers"),
        (None, "4", "RANK is not set"),
        ("1", None, "WORLD_SIZE is not set"),
    ],
)
def test_what_is_no_rank_of_a_gang_fails_and_says_why(
    rank: str | None,
    size: str | None,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", size)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert main(_job(tmp_path, 4)) == REPORTED_ERROR
    assert words in caplog.text
    assert "start ranks with torchrun" in caplog.text


@pytest.mark.parametrize(
    ("of_rank_1", "words"),
    [
        ({"files": "of another property"}, "the network or property of rank 1"),
        ({"strategy": to_json(strategy_named("tp"))}, "the options of rank 1"),
        ({"files": "x", "seed": 7}, "the options and the network or property of rank 1"),
    ],
)
def test_ranks_that_were_given_different_jobs_say_so(
    of_rank_1: dict[str, Any], words: str, run: Callable[..., GangResult]
) -> None:
    """Under `sp`, two ranks with two properties would prove half of each."""
    job = Question(
        "a",
        "b",
        "c",
        strategy=SP,
        ranks=2,
        timeout_s=10.0,
        files="of one property",
    )
    result = run("joined_for_a_job", 2, job=question_to_json(job), of_rank_1=of_rank_1)
    failed = [report for report in result.reports if report]
    assert result.dead_rank is not None
    assert {report["cause"] for report in failed} == {Cause.GANG_MISMATCH}
    assert all(report["message"].startswith(f"{words} are not those") for report in failed)


def test_paths_may_differ_from_rank_to_rank(run: Callable[..., GangResult]) -> None:
    job = Question(
        "a",
        "b",
        "c",
        strategy=SP,
        ranks=2,
        timeout_s=10.0,
        files="of one property",
    )
    own = {"network": "/other/a", "prepared": "/other/b", "counterexample": "/other/d"}
    result = run("joined_for_a_job", 2, job=question_to_json(job), of_rank_1=own)
    assert result.reports == ({}, {})


def test_a_gang_of_the_rank_server_is_held_to_its_job_too(run: Callable[..., GangResult]) -> None:
    job = Question("a", "b", "c", strategy=SP, ranks=3, timeout_s=10.0)
    result = run("joined_for_a_job", 2, job=question_to_json(job), of_rank_1={})
    for failed in (report for report in result.reports if report):
        assert failed["message"].startswith("the job is for 3 rank(s), but 2 joined")
    assert result.dead_rank is not None


def test_a_report_of_an_earlier_start_does_not_stand_for_a_rank_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(tmp_path, 1)
    assert main(job) == REPORTED
    monkeypatch.setattr(
        rank_module, "verify_target", lambda payload: os.kill(os.getpid(), signal.SIGKILL)
    )
    killed = multiprocessing.get_context("fork").Process(target=main, args=(job,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not report_path(tmp_path, 0).exists()


def test_a_job_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text("{")
    assert main(path) == REPORTED_ERROR
    report = _reported(tmp_path)
    assert (report.verdict, report.cause) == (Verdict.ERROR, Cause.INTERNAL_ERROR)
    assert "JSONDecodeError" in report.message
