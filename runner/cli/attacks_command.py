"""The experiment on attacks: what each finds on the same instances with the same budget."""

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
from runner.execute.gang import PRELOAD as VERIFIER
from runner.execute.gang import RankServer

if TYPE_CHECKING:  # pandas takes half a second to import
    from runner.experiments.attacks_experiment import AttackRow


class AttacksBar(Bar):
    """How many attacks are over, and the last one."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console, BarColumn(), MofNCompleteColumn())
        self._line = self._bar.add_task("", total=total)

    def attacked(self, row: AttackRow) -> None:
        words = f"{row.attack} {row.network} {row.property}"
        self._bar.update(self._line, advance=1, description=words)


def attacks(
    categories: Annotated[
        list[Path], typer.Argument(metavar="CATEGORY...", help="Folders with instances.csv.")
    ],
    attack: Annotated[
        str, typer.Option("--attacks", help="Comma-separated: pgd, cw, odi, interval.")
    ] = "pgd,cw,odi,interval",
    cpu: Annotated[
        float | None,
        typer.Option("--seconds", metavar="SECONDS", min=0.01, help="Processor time of each."),
    ] = None,
    passes: Annotated[
        int | None, typer.Option(min=1, help="Instead: points through the network and back.")
    ] = None,
    filter_glob: Filter = None,
    limit: Limit = None,
    seed: Seed = 0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the tables go; what is there is not redone.")
    ] = Path("results/attacks"),
) -> None:
    """Attacks with equal budgets: violations found, how fast, and how near the others came.

    Nothing is proved, and none ends early. Writes rows.csv (one for each attack on each
    instance) and attacks.md; the same command resumes, another budget adds rows.

    \b
    Examples:
      vnncomp-runner experiment attacks results/training/digits/digits --seconds 2
      vnncomp-runner experiment attacks mnist_fc --passes 20000 --filter '*256x2*'
    """
    screen = console()
    with exit_codes():
        # Pandas takes half a second to import.
        from runner.experiments import attacks_experiment as experiment
        from runner.report.attacks_table import attacks_table
        from runner.report.render import rich_table
        from runner.report.report_files import write_table
        from runner.report.table import grid

        budget = experiment.AttackBudget(cpu, passes)
        names = words(attack)
        tasks = experiment.tasks_of(categories, filter_glob, limit, seed)
        out.mkdir(parents=True, exist_ok=True)
        preload = (*VERIFIER, *experiment.PRELOAD)
        with (
            RankServer(out / "server.log", preload) as server,
            AttacksBar(screen, len(tasks) * len(names)) as progress,
        ):
            rows = experiment.attack_all(tasks, names, budget, out, server, progress.attacked, seed)
        table = attacks_table(experiment.summary(rows))
        write_table(table, [grid(table)], out)
        screen.print(rich_table(grid(table)))
        screen.print(f"Written: {out / 'attacks.md'}, {out / experiment.ROWS}", soft_wrap=True)
