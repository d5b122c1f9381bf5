"""The experiment on training: recipes trained, verified and compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.experiment_options import words
from runner.cli.progress import RunProgress
from runner.cli.terminal import console, exit_codes
from runner.cli.train_command import TrainingProgress
from runner.contract.vocabulary import Verdict
from runner.execute.gang import PRELOAD as VERIFIER
from runner.execute.gang import RankServer
from runner.experiments import train as recipes_of
from runner.run.schedule import Observer

REPORT = "report"


def training(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="TOML files.")],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="As of `train`; what it made is read."),
    ] = Path("results/training"),
    strategies: Annotated[
        str, typer.Option(help="Comma-separated: what every network is verified under.")
    ] = "baseline",
    ranks: Annotated[int, typer.Option(min=1, help="Processes of a parallel strategy.")] = 2,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Of an instance, instead of the recipe's."),
    ] = None,
) -> None:
    """Training methods: accuracy, stable ReLUs, proofs, times and memory, by method and radius.

    Writes DIR/RECIPE/report; the same command resumes.

    \b
    Examples:
      vnncomp-runner experiment training recipes/digits.toml
      vnncomp-runner experiment training recipes/mnist_mlp.toml --strategies baseline,fsdp,tp
    """
    screen = console()
    with exit_codes():
        # Pandas and matplotlib take a second to import.
        from runner.experiments.training_experiment import TrainingComparison, compare, summary
        from runner.report.render import rich_table
        from runner.report.table import grid
        from runner.report.training import short, write_training

        @contextmanager
        def observed(tasks: int, done: Sequence[Verdict]) -> Iterator[Observer]:
            with RunProgress(screen, tasks, done) as progress:
                yield progress

        comparison = TrainingComparison(tuple(words(strategies)), ranks, timeout)
        out.mkdir(parents=True, exist_ok=True)
        preload = (*recipes_of.PRELOAD, *VERIFIER, "runner.engine.programs.measured_bounds")
        with RankServer(out / "server.log", preload) as server:
            for checked in recipes_of.check(recipes, out, server):
                with TrainingProgress(screen, checked) as progress:
                    recipes_of.train(checked, server, progress)
                rows = compare(checked, comparison, server, observed)
                table = write_training(checked.name, summary(rows), checked.home / REPORT)
                screen.print(rich_table(grid(short(table))))
                screen.print(f"Report: {checked.home / REPORT / 'training.html'}", soft_wrap=True)
