"""`vnncomp-runner doctor`: what is missing on this machine, and the remedy."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from runner.cli.terminal import console
from runner.run.doctor import State, examine

_STYLES = {State.GOOD: "green", State.NOTE: "yellow", State.PROBLEM: "red"}


def doctor(
    build: Annotated[
        bool,
        typer.Option("--build", help="First build what counts memory on a CPU, as set-up does."),
    ] = False,
) -> None:
    """Check Python, dependencies, devices and backends; exit code 1 if something is missing."""
    table = Table("", "", "found")
    table.add_column("remedy", overflow="fold")
    problems = 0
    for check in examine(build):
        state = Text(str(check.state), style=_STYLES[check.state])
        table.add_row(check.name, state, Text(check.found), Text(check.remedy))
        problems += check.state is State.PROBLEM
    console().print(table)
    if problems:
        raise typer.Exit(1)
