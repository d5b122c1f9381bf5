"""A run of many outcomes is read whole: every one counts in the tables and is found in the page."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from made_runs import MadeRun
from typer.testing import CliRunner

from runner.cli.app import app
from runner.contract.vocabulary import Verdict
from runner.record.read import read_run

pytestmark = pytest.mark.slow

QUESTIONS = 100
RANKS = {"baseline": 1, "fsdp": 4, "tp": 4, "lirpa": 3}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """100 questions under four strategies."""
    run, chance = MadeRun(tmp_path / "results"), random.Random(0)
    for number in range(QUESTIONS):
        seconds, peak = 10 ** chance.uniform(-2, 1.2), int(10 ** chance.uniform(4, 9))
        verdict = chance.choice([Verdict.SAT, Verdict.UNSAT, Verdict.UNSAT, Verdict.UNKNOWN])
        for strategy, ranks in RANKS.items():
            time_s = seconds * chance.uniform(0.5, 2)
            run.add(
                strategy,
                number,
                Verdict.TIMEOUT if time_s > 10 else verdict,
                time_s,
                (peak // ranks,) * ranks,
                category=f"category_{number % 6}",
                comm_s=time_s / 9,
            )
    return run.read().path


def multiplied(run: Path, copies: int) -> None:
    """Each question so many times, under a name of its own."""
    for name in ("outcomes.csv", "ranks.csv"):
        head, *lines = (run / name).read_text().splitlines(keepends=True)
        text = "".join(lines)
        again = (text.replace("vnnlib/p", f"vnnlib/{copy}_p") for copy in range(copies))
        (run / name).write_text(head + "".join(again))


def report(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_page_of_2000_outcomes_names_every_question(run: Path, tmp_path: Path) -> None:
    multiplied(run, 5)
    report(run, "--out", tmp_path)

    page = (tmp_path / "report.html").read_text()
    names = [f"vnnlib/{copy}_p{number}.vnnlib" for copy in range(5) for number in range(QUESTIONS)]
    assert [name for name in names if name not in page] == []
    assert len(list(tmp_path.glob("*.png"))) == 6


@pytest.mark.exhaustive
def test_the_tables_of_20000_outcomes_count_every_question(run: Path) -> None:
    multiplied(run, 50)
    read = read_run(run)

    assert (len(read.outcomes), len(read.ranks)) == (20_000, 60_000)
    assert "5,000" in report(run)
