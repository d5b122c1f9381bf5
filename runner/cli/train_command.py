"""`vnncomp-runner train`: networks of recipes, and a VNN-COMP category of each recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn

from runner.cli.bar import Bar
from runner.cli.terminal import console, exit_codes
from runner.execute.gang import PRELOAD as VERIFIER
from runner.execute.gang import RankServer
from runner.experiments import train as training
from runner.report.text import seconds, share, size


def train(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="TOML files.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Each recipe gets a folder of its name in it.")
    ] = Path("results/training"),
    label: Annotated[
        bool,
        typer.Option(help="Write expected.csv too: what verifier and another attack agree on."),
    ] = False,
) -> None:
    """Train the networks of recipes and write a category for each recipe.

    The category is the folder DIR/RECIPE/RECIPE; DIR/RECIPE/networks.csv has accuracy, time and
    memory of training. The same command again resumes what was interrupted or killed.

    \b
    Examples:
      vnncomp-runner train recipes/digits.toml
      vnncomp-runner train recipes/mnist_mlp.toml --label
      vnncomp-runner run results/training/digits/digits --strategies baseline
    """
    out_console = console()
    with exit_codes():
        out.mkdir(parents=True, exist_ok=True)
        preload = (*training.PRELOAD, *(VERIFIER if label else ()))
        with RankServer(out / "server.log", preload) as server:
            for checked in training.check(recipes, out, server):
                try:
                    _train(checked, server, out_console, label)
                except KeyboardInterrupt:
                    typer.echo("\nInterrupted. The same command resumes.", err=True)
                    raise


def _train(checked: training.CheckedRecipe, server: RankServer, out: Console, label: bool) -> None:
    with TrainingProgress(out, checked) as progress:
        training.train(checked, server, progress)
    # Pandas takes half a second to import.
    import pandas as pd

    for name, rows in pd.read_csv(checked.figures).groupby("network", sort=False):
        first: Any = next(rows.itertuples())
        attacked = ", ".join(
            f"{share(accuracy)} at {radius:g}"
            for radius, accuracy in zip(rows["radius"], rows["pgd_accuracy"], strict=True)
        )
        out.print(
            f"{name}: accuracy {share(first.clean_accuracy)}, under PGD {attacked}; trained in "
            f"{seconds(first.training_s)}, {size(first.training_peak_bytes)}",
            soft_wrap=True,
        )
    out.print(f"Category: {checked.category}", soft_wrap=True)
    if label:
        from runner.experiments.labels import write_labels

        out.print(f"Labels: {write_labels(checked, server)}", soft_wrap=True)


class TrainingProgress(Bar):
    """A bar of epochs on a terminal; it tells loss and accuracy on the validation part."""

    def __init__(self, out: Console, checked: training.CheckedRecipe) -> None:
        done = TextColumn("{task.completed} of {task.total} epochs")
        super().__init__(out, TextColumn(checked.name), BarColumn(), done)
        self._epochs = {network.name: 0 for network in checked.networks}
        total = sum(network.epochs for network in checked.networks)
        self._line = self._bar.add_task("", total=total)

    def progressed(self, network: training.RecipeNetwork, progress: dict[str, Any]) -> None:
        self._epochs[network.name] = progress["epoch"]
        told = f"{network.name}: loss {progress['loss']:.3f}, {share(progress['accuracy'])} right"
        self._bar.update(self._line, completed=sum(self._epochs.values()), description=told)
