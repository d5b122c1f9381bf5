"""`vnncomp-runner compare`: what became better and worse from one run to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from runner.cli.options import Results
from runner.cli.printed_tables import print_table
from runner.cli.runs import find_run
from runner.cli.terminal import console, exit_codes

WORSE = 1

EXIT_CODES = """\b
Exit codes:
  0  nothing that --fail-on names became worse
  1  something did
  2  wrong usage: no such run, or runs that share nothing
"""

_MOST = 20


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A run folder, or a name.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="A run folder, or a name.")],
    limits: Annotated[
        str,
        typer.Option(
            "--fail-on",
            metavar="LIST",
            help="verdict: an answer lost, contradicted or not recorded yet; time:FACTOR, "
            "memory:FACTOR: an instance that grew beyond noise and by more than the factor.",
        ),
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help=f"All changes, not {_MOST} of each.")
    ] = False,
    results: Results = Path("results"),
) -> None:
    """Compare two runs: answers lost and won, times and memory that changed beyond noise.

    The noise is measured where a run was made with --repeat.

    \b
    Examples:
      vnncomp-runner compare results/before results/after
      vnncomp-runner compare main branch --fail-on verdict,time:1.3,memory:1.2
    """
    with exit_codes():
        from runner.record.read import read_run
        from runner.report.change_tables import change_tables
        from runner.report.changes import changes, fail_on, failures, notes

        chosen = fail_on(limits)
        before, after = (read_run(find_run(name, results)) for name in (old, new))
        table = changes(before, after)
        terminal = console()
        for note in notes(before, after, table):
            terminal.print(Text(note, style="yellow"), soft_wrap=True)
        for part in change_tables(table):
            print_table(part, terminal, None if every else _MOST)
        found = failures(table, chosen, after.manifest.rows - len(after.outcomes))
        for failure in found:
            typer.echo(f"worse: {failure}", err=True)
        if found:
            raise typer.Exit(WORSE)
