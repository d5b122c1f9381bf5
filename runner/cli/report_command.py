"""`vnncomp-runner report`: the tables of one or several runs, and everything as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.cli.options import Results
from runner.cli.printed_tables import print_strategies, print_table
from runner.cli.runs import read_runs
from runner.cli.terminal import console, exit_codes
from runner.contract.errors import UsageError
from runner.problem.names import matches

_MOST_INSTANCES = 40


def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders, or names in --results.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write report.html, every table and every plot there."
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("--filter", metavar="GLOB", help="Only instances that match, as in `run`."),
    ] = None,
    by_category: Annotated[
        bool, typer.Option("--by-category", help="All figures of each category.")
    ] = False,
    instances: Annotated[
        bool, typer.Option("--instances", help=f"All instances, not {_MOST_INSTANCES} at most.")
    ] = False,
    results: Results = Path("results"),
) -> None:
    """Compare the strategies of one run, or of several put together.

    Runs on several machines or with several numbers of ranks are told apart in the tables; runs
    of the same thing count as repeats, of which the one with the median run time is shown.

    \b
    Examples:
      vnncomp-runner report results/nightly
      vnncomp-runner report results/two_ranks results/four_ranks --out comparison
      vnncomp-runner report results/nightly --filter '*256x4*' --by-category
    """
    with exit_codes():
        from runner.report.gather import gather
        from runner.report.tables import causes_table, instances_table, ranks_table

        terminal = console()
        evidence = gather(read_runs(runs, results))
        if pattern is not None:
            evidence = evidence.only(
                lambda network, property_name: matches(network, property_name, pattern)
            )
            if evidence.outcomes.empty:
                raise UsageError(f"no outcome of an instance that matches {pattern!r}")
        table = instances_table(evidence)
        print_table(table, terminal, None if instances else _MOST_INSTANCES)
        print_table(ranks_table(evidence), terminal)
        print_table(causes_table(evidence), terminal)
        print_strategies(evidence, terminal, by_category)
        if out is not None:
            from runner.report.report_files import write_report

            page = write_report(evidence, out)
            terminal.print(f"Report: {page}", soft_wrap=True)
