"""What people see while a run goes: a bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from fake_server import make_category
from rich.console import Console

from runner.cli.progress import RunProgress
from runner.contract.vocabulary import Cause, Verdict
from runner.record.manifest import Command
from runner.run.judge import Answer, refused
from runner.run.plan import Task, plan


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    return plan(Command((str(make_category(tmp_path / "digits", 4)),), ("baseline",), 1))


def shown(tasks: list[Task], terminal: bool, done: Iterable[Verdict] = ()) -> str:
    """What a run prints that records `unsat`, then `error`, of its first two tasks."""
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=150)
    with RunProgress(console, len(tasks), done) as progress:
        for task, answer in zip(
            tasks,
            (
                Answer(Verdict.UNSAT, Cause.NONE),
                Answer(Verdict.ERROR, Cause.OUT_OF_MEMORY, "no more"),
            ),
            strict=False,
        ):
            progress.started(task)
            progress.recorded(replace(refused(task, answer), run_time_s=0.25))
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())


def test_a_bar_counts_verdicts_and_estimates_the_rest(tasks: list[Task]) -> None:
    last = shown(tasks, terminal=True, done=[Verdict.SAT]).splitlines()[-1]

    assert "3/4" in last
    assert "sat 1  unsat 1  error 1" in last
    assert re.search(r"\d:\d\d:\d\d", last), "the time that is left"


def test_elsewhere_each_outcome_is_a_line(tasks: list[Task]) -> None:
    assert shown(tasks, terminal=False).splitlines() == [
        "[1/4] baseline digits net0.onnx prop0.vnnlib: unsat in 0.250 s",
        "[2/4] baseline digits net1.onnx prop1.vnnlib: error (out_of_memory) in 0.250 s",
    ]
