"""A run of 20,000 outcomes and 60,000 rank rows is reported at once, in little memory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import MadeRun

from runner.record.read import read_run
from runner.vocabulary import Verdict

# Seconds of the processor: the machine is shared with other tests.
TABLE_SECONDS, REPORT_SECONDS, BYTES = 3.0, 20.0, 2**30
QUESTIONS, COPIES = 100, 50
RANKS = {"baseline": 1, "fsdp": 4, "tp": 4, "lirpa": 3}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, chance = MadeRun(tmp_path_factory.mktemp("results")), random.Random(0)
    for number in range(QUESTIONS):
        seconds, peak = 10 ** chance.uniform(-2, 1.2), int(10 ** chance.uniform(4, 9))
        verdict = chance.choice([Verdict.SAT, Verdict.UNSAT, Verdict.UNSAT, Verdict.UNKNOWN])
        for strategy, ranks in RANKS.items():
            time_s = seconds * chance.uniform(0.5, 2)
            late = time_s > 10
            run.add(
                strategy,
                number,
                Verdict.TIMEOUT if late else verdict,
                time_s,
                (peak // ranks,) * ranks,
                category=f"category_{number % 6}",
                comm_s=time_s / 9,
            )
    run.read()
    for name in ("outcomes.csv", "ranks.csv"):
        head, *lines = (run.path / name).read_text().splitlines(keepends=True)
        copies = ["".join(lines).replace("vnnlib/p", f"vnnlib/{copy}_p") for copy in range(COPIES)]
        (run.path / name).write_text(head + "".join(copies))
    made = read_run(run.path)
    assert (len(made.outcomes), len(made.ranks)) == (20_000, 60_000)
    return made.path


def measured(*arguments: object) -> tuple[str, float, int]:
    """What a command printed, its seconds of the processor, and its peak resident bytes."""
    code = (
        "import resource, sys; from runner.cli.app import app; sys.argv[0] = 'vnncomp-runner'\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        # Not ru_maxrss: that remembers the process that started this one.
        "peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]\n"
        "print(used.ru_utime + used.ru_stime, peak)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, kilobytes = done.stdout.split()[-2:]
    return done.stdout, float(seconds), int(kilobytes) * 1024


def test_the_table_alone(large: Path) -> None:
    text, seconds, peak = measured("report", large)

    assert "5,000" in text
    assert seconds < TABLE_SECONDS
    assert peak < BYTES


def test_the_whole_report(large: Path, tmp_path: Path) -> None:
    _, seconds, peak = measured("report", large, "--out", tmp_path)

    assert (tmp_path / "report.html").stat().st_size > COPIES * QUESTIONS * 100
    assert len(list(tmp_path.glob("*.png"))) == 6
    assert seconds < REPORT_SECONDS
    assert peak < BYTES
