"""`vnncomp-runner show`: a run and its instances, or all there is to know of one instance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from runner.cli.options import Results
from runner.cli.plan_command import plan
from runner.cli.printed_tables import print_strategies, print_table
from runner.cli.runs import find_run
from runner.cli.terminal import console, exit_codes
from runner.contract.errors import UsageError
from runner.contract.vocabulary import Verdict
from runner.problem.names import matches
from runner.record.folder import OUTCOMES, RANKS
from runner.record.manifest import FILE_NAME

if TYPE_CHECKING:
    from runner.record.read import Run
    from runner.report.gather import Evidence

_MOST_STORIES = 3


def show(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run folder, or a name in --results.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="[INSTANCE]",
            help=f"Glob as in --filter. Up to {_MOST_STORIES} instances are told in full.",
        ),
    ] = None,
    by_category: Annotated[
        bool, typer.Option("--by-category", help="A summary for each category.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Only the summary, as Markdown.")
    ] = False,
    results: Results = Path("results"),
    network: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="NETWORK",
            help="No run, but what `plan` prints: how a strategy lays this network over ranks.",
        ),
    ] = None,
    strategy: Annotated[str, typer.Option(help="Of --plan.")] = "tp",
    ranks: Annotated[int, typer.Option(min=1, help="Of --plan.")] = 2,
) -> None:
    """Show a run: every instance under each strategy, what went wrong, and the summary.

    With the name of an instance: its property, its network, and each strategy's verdict, bound,
    times, memory, log and counterexample. The run may still be going on, or have been killed.

    \b
    Examples:
      vnncomp-runner show 20260101T120000.000Z-mnist_fc
      vnncomp-runner show results/nightly 'mnist-net_256x4_prop_1_0.03'
      vnncomp-runner show results/nightly --markdown >> README.md
      vnncomp-runner show --plan mnist-net_256x2.onnx --strategy tp --ranks 2
    """
    with exit_codes():
        if (run is None) == (network is None):
            raise UsageError("show needs a RUN, or a network after --plan")
    if network is not None:
        plan(network, strategy, ranks)
    elif run is not None:
        _show(run, pattern, results, by_category=by_category, markdown=markdown)


def _show(
    run: str, pattern: str | None, results: Path, *, by_category: bool, markdown: bool
) -> None:
    with exit_codes():
        from runner.record.read import read_run

        whole = read_run(find_run(run, results))
        evidence = _evidence(whole, pattern)
        if markdown:
            _print_markdown(evidence, by_category)
            return
        out = console()
        if pattern and _instances(evidence) <= _MOST_STORIES:
            _print_stories(whole, evidence, out)
        else:
            _print_instances(evidence, out)
        print_strategies(evidence, out, by_category)
        print_files(whole.path, out)


def print_files(run: Path, out: Console) -> None:
    """Where everything of a run is."""
    out.print(f"Files: {run}/ ({OUTCOMES}, {RANKS}, {FILE_NAME}, logs/)", soft_wrap=True)


def _evidence(run: Run, pattern: str | None) -> Evidence:
    """Raises UsageError when there is none."""
    from runner.report.gather import gather

    evidence = gather([run])
    if pattern is None:
        return evidence
    chosen = evidence.only(lambda network, property_name: matches(network, property_name, pattern))
    if chosen.outcomes.empty:
        raise UsageError(f"{run.path}: no outcome of an instance that matches {pattern!r}")
    return chosen


def _instances(evidence: Evidence) -> int:
    from runner.report.gather import QUESTION

    return len(evidence.outcomes[QUESTION].drop_duplicates())


def _print_markdown(evidence: Evidence, by_category: bool) -> None:
    from runner.report.render import markdown
    from runner.report.table import transposed
    from runner.report.tables import strategies_table

    table = strategies_table(evidence, by_category)
    for category, frame in table.frame.groupby("category", sort=False):
        part = replace(table, frame=frame, title=str(category) if by_category else "", note="")
        typer.echo(markdown(transposed(part, "strategy", ("category",))))


def _print_instances(evidence: Evidence, out: Console) -> None:
    from runner.report.tables import instances_table

    print_table(instances_table(evidence), out)
    outcomes = evidence.outcomes
    errors = outcomes[(outcomes["verdict"] == Verdict.ERROR) | (outcomes["message"] != "")]
    for row in errors.to_dict("records"):
        line = (
            f"{row['label']} {row['category']} {row['network']} {row['property']}: "
            f"{row['verdict']} {row['cause']}: {row['message']}"
        )
        out.print(Text(line), soft_wrap=True)


def _print_stories(run: Run, evidence: Evidence, out: Console) -> None:
    from runner.report.render import rich_table
    from runner.report.story import stories

    for story in stories(run, evidence):
        out.rule(Text(story.title), align="left")
        for name, fact in story.facts:
            out.print(Text.assemble((f"{name}: ", "bold"), fact), soft_wrap=True)
        for grid in story.grids:
            out.print(rich_table(grid))
        for name, text in story.texts:
            out.print(Text(name, style="bold"), soft_wrap=True)
            out.print(Text(text), soft_wrap=True)
