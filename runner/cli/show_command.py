"""`vnncomp-runner show`: the summary and the instances of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from runner.cli.terminal import console, exit_codes
from runner.errors import UsageError
from runner.plan import matches
from runner.record.folder import OUTCOMES, RANKS
from runner.record.manifest import FILE_NAME, Status, read_manifest
from runner.vocabulary import Verdict

if TYPE_CHECKING:
    import pandas as pd


def show(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder, or a name in --results.")
    ],
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="[INSTANCE-GLOB]", help="Only instances that match, as in --filter."
        ),
    ] = None,
    by_category: Annotated[
        bool, typer.Option("--by-category", help="A summary for each category.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Only the summary, as Markdown.")
    ] = False,
    results: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder that run folders are in.")
    ] = Path("results"),
) -> None:
    """Show a run: its summary, every instance under each strategy, and what went wrong.

    It may still be running, or have been killed.

    \b
    Examples:
      vnncomp-runner show 20260101T120000.000Z-mnist_fc
      vnncomp-runner show results/nightly '*256x4*'
      vnncomp-runner show results/nightly --markdown >> README.md
    """
    with exit_codes():
        folder = _find(run, results)
        if markdown:
            _print_markdown(folder, pattern, by_category)
        else:
            out = console()
            _print_instances(folder, pattern, out)
            print_summary(folder, out, pattern, by_category)


def print_summary(
    run: Path, out: Console, pattern: str | None = None, by_category: bool = False
) -> None:
    """The summary table, what must not be overlooked, and where the files are."""
    from runner.report.console import LEGEND, summary_table
    from runner.report.summary import contradictions

    for title, rows in _summaries(run, pattern, by_category):
        out.print(summary_table(rows, title))
    out.print(LEGEND, style="dim")
    contradicting = contradictions(_outcomes(run, pattern))
    for row in contradicting.to_dict("records"):
        out.print(
            f"CONTRADICTION: {row['category']} {row['network']} {row['property']} is "
            f"{row['verdict']} under {row['strategy']}",
            style="red",
            markup=False,
        )
    manifest = read_manifest(run)
    recorded = len(_outcomes(run, None))
    if manifest.status is not Status.FINISHED:
        out.print(f"{manifest.status}: {recorded} of {manifest.rows} outcomes", style="yellow")
    out.print(f"Files: {run}/ ({OUTCOMES}, {RANKS}, {FILE_NAME}, logs/)", soft_wrap=True)


def _print_markdown(run: Path, pattern: str | None, by_category: bool) -> None:
    from runner.report.console import markdown

    for title, rows in _summaries(run, pattern, by_category):
        heading = f"### {title}\n\n" if title else ""
        typer.echo(heading + markdown(rows))


def _print_instances(run: Path, pattern: str | None, out: Console) -> None:
    from runner.report.console import instance_table

    outcomes = _outcomes(run, pattern)
    out.print(instance_table(outcomes))
    errors = outcomes[(outcomes["verdict"] == Verdict.ERROR) | (outcomes["message"] != "")]
    for row in errors.to_dict("records"):
        out.print(
            f"{row['strategy']} {row['category']} {row['network']} {row['property']}: "
            f"{row['verdict']} {row['cause']}: {row['message']}",
            markup=False,
            soft_wrap=True,
        )


def _summaries(
    run: Path, pattern: str | None, by_category: bool
) -> list[tuple[str | None, pd.DataFrame]]:
    from runner.record.read import ranks
    from runner.report.summary import summary

    outcomes, rank_rows = _outcomes(run, pattern), _chosen(ranks(run), pattern)
    rows = summary(outcomes, rank_rows, by_category)
    if not by_category:
        return [(None, rows)]
    return [(str(category), part) for category, part in rows.groupby("category", sort=False)]


def _outcomes(run: Path, pattern: str | None) -> pd.DataFrame:
    """Raises UsageError when there is none."""
    from runner.record.read import outcomes

    chosen = _chosen(outcomes(run), pattern)
    if chosen.empty and pattern:
        raise UsageError(f"{run}: no outcome of an instance that matches {pattern!r}")
    if chosen.empty:
        raise UsageError(f"{run}: no outcome was recorded yet")
    return chosen


def _chosen(table: pd.DataFrame, pattern: str | None) -> pd.DataFrame:
    if pattern is None:
        return table
    names = zip(table["network"], table["property"], strict=True)
    return table[[matches(network, property_name, pattern) for network, property_name in names]]


def _find(run: str, results: Path) -> Path:
    for candidate in (Path(run), results / run):
        if (candidate / FILE_NAME).is_file():
            return candidate
    known = sorted(file.parent.name for file in results.glob(f"[!.]*/{FILE_NAME}"))
    listed = f"runs in {results}: {', '.join(known)}" if known else f"{results} has no run"
    raise UsageError(f"{run} is no run folder; {listed}")
