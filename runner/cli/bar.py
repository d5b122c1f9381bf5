"""A bar that goes on while something runs: on a terminal, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from runner.contract.vocabulary import Verdict
from runner.report.words import VERDICT_STYLES


class Bar:
    """After `columns` come the time that is left and the description of what is done."""

    def __init__(self, console: Console, *columns: ProgressColumn) -> None:
        self._console = console
        self._bar = Progress(
            *columns,
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()


class VerdictBar(Bar):
    """Of outcomes: a task of it has a field `counts`, which `counted` makes."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            console, BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[counts]}")
        )


def counted(verdicts: Mapping[Verdict, int]) -> str:
    """How many there are of each, in its colour."""
    return "  ".join(
        f"[{VERDICT_STYLES[verdict]}]{verdict} {verdicts[verdict]}[/]"
        for verdict in Verdict
        if verdicts.get(verdict)
    )
