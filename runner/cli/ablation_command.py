"""The experiment on parts of the engine: the whole of it, and all but one part at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn

from runner.cli.bar import Bar
from runner.cli.experiment_options import words
from runner.cli.options import Filter, Limit, Seed
from runner.cli.terminal import console, exit_codes
from runner.contract.vocabulary import EnginePart
from runner.execute.gang import PRELOAD as VERIFIER
from runner.execute.gang import RankServer
from runner.report.text import seconds

if TYPE_CHECKING:  # pandas takes half a second to import
    from runner.experiments.ablation_experiment import AblationRow

# Of the command's help; \b keeps the lines.
PARTS = "\b\nParts that can be left out:\n" + "\n".join(
    f"  {name:<14}{what}"
    for name, what in (
        *((part, part.__doc__) for part in EnginePart),
        ("everything", "all of them"),
    )
)


class AblationBar(Bar):
    """How many answers there are, and the last one; a line for each where no terminal is."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console, BarColumn(), MofNCompleteColumn())
        self._line = self._bar.add_task("", total=total)

    def answered(self, row: AblationRow) -> None:
        time = "" if row.cpu_s is None else f" in {seconds(row.cpu_s)}"
        asked = f"{row.category} {row.network} {row.property}"
        told = f"{asked} without {row.without}: {row.verdict}{time}"
        self._bar.update(self._line, advance=1, description=told)
        if not self._console.is_terminal:
            self._console.print(told, soft_wrap=True)


def ablation(
    categories: Annotated[
        list[Path], typer.Argument(metavar="CATEGORY...", help="Folders with instances.csv.")
    ],
    without: Annotated[
        str,
        typer.Option(
            metavar="PARTS",
            help="Comma-separated: what is left out each time; several at once are joined by +. "
            "[default: each part by itself, then everything]",
        ),
    ] = "",
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0.1, help="Of each answer, instead of the instance's own."
        ),
    ] = None,
    filter_glob: Filter = None,
    limit: Limit = None,
    seed: Seed = 0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the tables go; what is there is not redone.")
    ] = Path("results/ablation"),
) -> None:
    """What each part of the engine buys: decided, lost and processor time without it.

    Each instance is answered by the whole engine, under baseline, and then without some of it,
    one part at a time unless --without says otherwise. No part is needed for soundness: an answer
    that contradicts the whole engine's is a defect, and its row is red. Writes rows.csv (one for
    each answer) and ablation.md; the same command resumes, others add rows.

    \b
    Examples:
      vnncomp-runner experiment ablation acasxu mnist_fc --limit 2 --timeout 20
      vnncomp-runner experiment ablation acasxu --limit 5 --without forward,cuts+near-alpha
    """
    screen = console()
    with exit_codes():
        # Pandas takes half a second to import.
        from runner.experiments import ablation_experiment as experiment
        from runner.experiments.attacks_experiment import tasks_of
        from runner.report.ablation_table import ablation_table
        from runner.report.render import rich_table
        from runner.report.report_files import write_table
        from runner.report.table import grid

        parts = experiment.parts_named(words(without))
        tasks = tasks_of(categories, filter_glob, limit, seed, timeout)
        out.mkdir(parents=True, exist_ok=True)
        with (
            RankServer(out / "server.log", VERIFIER) as server,
            AblationBar(screen, len(tasks) * (1 + len(parts))) as progress,
        ):
            rows = experiment.ablate(tasks, parts, out, server, progress.answered, seed)
        table = ablation_table(experiment.summary(rows))
        write_table(table, [grid(table)], out)
        screen.print(rich_table(grid(table)))
        screen.print(f"Written: {out / 'ablation.md'}, {out / experiment.ROWS}", soft_wrap=True)
