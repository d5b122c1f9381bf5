"""The experiment on what sharding buys on trained networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.experiment_options import bound_methods, counts, words
from runner.cli.options import Filter
from runner.cli.progress import RunProgress
from runner.cli.terminal import console, exit_codes
from runner.cli.train_command import TrainingProgress
from runner.execute.gang import RankServer
from runner.experiments import train as recipes_of
from runner.experiments.experiment import Part
from runner.run.schedule import Observer

REPORT = "report"


def sharding(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="TOML files.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="As of `train`; what it made is read.")
    ] = Path("results/training"),
    strategies: Annotated[
        str, typer.Option(help="Comma-separated; baseline is always there.")
    ] = "fsdp,tp",
    ranks: Annotated[str, typer.Option(help="Comma-separated numbers of processes.")] = "2",
    methods: Annotated[
        str, typer.Option(help="Of bounds, comma-separated: ibp, crown, alpha-crown.")
    ] = "crown",
    filter_glob: Filter = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Of one strategy on one question.")
    ] = 600,
    name: Annotated[
        str,
        typer.Option(
            "--run", metavar="NAME", help="Of the folder in DIR/RECIPE that has the runs."
        ),
    ] = "sharding",
) -> None:
    """Whether training changes what sharding buys: rows of A, memory and traffic, by method.

    Every question to the networks of a recipe is bounded under every strategy, whatever the bounds
    prove, so that all do the same work. Writes DIR/RECIPE/NAME/report; the same command resumes.

    \b
    Example:
      vnncomp-runner experiment sharding recipes/digits.toml --filter '*seed0*radius_0.1'
    """
    screen = console()
    with exit_codes():
        # Pandas takes half a second to import.
        from runner.experiments.sharding_experiment import (
            ShardedBounds,
            bound_sharded,
            sharding_summary,
        )
        from runner.report.render import rich_table
        from runner.report.report_files import write_table
        from runner.report.sharding_table import sharding_table, short
        from runner.report.table import grid

        @contextmanager
        def progress(part: Part, tasks: int) -> Iterator[Observer]:
            screen.print(f"{part.method}, {part.ranks} rank(s): {', '.join(part.strategies)}")
            with RunProgress(screen, tasks, ()) as observer:
                yield observer

        asked = ShardedBounds(
            methods=tuple(bound_methods(methods)),
            strategies=tuple(words(strategies)),
            ranks=tuple(counts(ranks)),
            filter=filter_glob,
            timeout_s=timeout,
        )
        out.mkdir(parents=True, exist_ok=True)
        with RankServer(out / "server.log", recipes_of.PRELOAD) as server:
            known = recipes_of.check(recipes, out, server)
            for checked in known:
                with TrainingProgress(screen, checked) as trained:
                    recipes_of.train(checked, server, trained)
        for checked in known:
            folder = checked.home / name
            rows = bound_sharded(checked, asked, folder, progress)
            table = sharding_table(checked.name, sharding_summary(rows))
            (folder / REPORT).mkdir(exist_ok=True)
            write_table(table, [grid(table)], folder / REPORT)
            screen.print(rich_table(grid(short(table))))
            screen.print(f"Written: {folder / REPORT / 'sharding.md'}", soft_wrap=True)
