"""`vnncomp-runner experiment`: the same work under every strategy, measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.cli.experiment_options import Common, bound_methods, counts, words
from runner.cli.options import taking
from runner.cli.progress import RunProgress
from runner.cli.terminal import console, exit_codes
from runner.contract.errors import UsageError
from runner.contract.vocabulary import Method
from runner.contract.workload import Workload
from runner.experiments.experiment import (
    Experiment,
    Generated,
    Part,
    parts_growing,
    run_experiment,
)
from runner.run.schedule import Observer

INPUTS = 784  # as MNIST

experiments = typer.Typer(
    help="Experiments: the same work under every strategy over several numbers of ranks.\n\n"
    "Each writes a folder of runs with table.md and table.csv, and resumes with --run NAME.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Described = Callable[..., Experiment]
Methods = Annotated[str, typer.Option(help="Comma-separated: ibp, crown, alpha-crown.")]


def experiment_command(
    strategies: str, ranks: str, radius: float
) -> Callable[[Described], Described]:
    """Makes a command of a function that says what to run. The defaults are the command's."""

    def register(described: Described) -> Described:
        @experiments.command()
        @taking(Common, strategies=strategies, ranks=ranks, radius=radius)
        @wraps(described)
        def command(common: Common, **own: Any) -> None:
            with exit_codes():
                _run(described(common, **own), common.results, common.name)

        return described

    return register


@experiment_command(strategies="fsdp,tp,sp,fsdp+sp", ranks="1,2,4", radius=5e-4)
def memory(
    common: Common,
    width: Annotated[str, typer.Option(help="Comma-separated widths of layers.")] = "256,1024,4096",
    depth: Annotated[str, typer.Option(help="Comma-separated numbers of layers.")] = "4,8",
    methods: Methods = "crown",
) -> Experiment:
    """Random MLPs: resting and peak bytes per rank, time and traffic.

    \b
    Example:
      vnncomp-runner experiment memory --width 4096 --depth 8 --ranks 1,2,4
    """
    sizes = [(w, d) for w in counts(width) for d in counts(depth)]
    made = [Generated("mlp", (INPUTS, w, d), common.radius) for w, d in sizes]
    return common.experiment("memory", common.parts(bound_methods(methods), made))


@experiment_command(strategies="tp,tp-ibp,lirpa", ranks="1,2", radius=0.02)
def tightness(common: Common, methods: Methods = "crown") -> Experiment:
    """Lower bounds of every strategy against baseline's, on MLPs 256x2, 256x4 and 256x6.

    \b
    Example:
      vnncomp-runner experiment tightness --category mnist_fc --filter '*prop_1_0.03*'
    """
    # 256xD of VNN-COMP counts hidden layers.
    made = [Generated("mlp", (INPUTS, 256, hidden + 1), common.radius) for hidden in (2, 4, 6)]
    return common.experiment("tightness", common.parts(bound_methods(methods), made))


@experiment_command(strategies="sp,fsdp+sp,fsdp,tp", ranks="1,2,4", radius=5e-3)
def scaling(
    common: Common,
    width: Annotated[int, typer.Option(min=1, help="Of the random MLP, at P=1.")] = 512,
    depth: Annotated[int, typer.Option(min=2, help="Of the random MLP.")] = 6,
    weak: Annotated[
        bool, typer.Option(help="Networks grow with P: P times the work, width * P^(1/3).")
    ] = False,
    methods: Methods = "crown,alpha-crown",
) -> Experiment:
    """Speed-up, efficiency and traffic over P, one thread a rank.

    \b
    Examples:
      vnncomp-runner experiment scaling --ranks 1,2
      vnncomp-runner experiment scaling --category mnist_fc --filter '*256x6_prop_1_0.03' --repeat 3
    """

    def mlp(width: int) -> Generated:
        return Generated("mlp", (INPUTS, width, depth), common.radius)

    by = bound_methods(methods)
    if not weak:
        return common.experiment("scaling", common.parts(by, [mlp(width)]))
    if common.category:
        raise UsageError("--weak makes its own networks; leave --category out")
    networks = {ranks: mlp(_grown(width, ranks)) for ranks in counts(common.ranks)}
    parts = parts_growing(by, networks, words(common.strategies))
    return common.experiment("weak-scaling", parts)


@experiment_command(
    strategies="fsdp,tp,sp,fsdp+sp,baseline+checkpoint,lirpa", ranks="1,2", radius=5e-3
)
def alpha(common: Common) -> Experiment:
    """Bytes of α, A and weights on an MLP, a CNN and a ResNet, of every strategy and of lirpa.

    \b
    Example:
      vnncomp-runner experiment alpha --ranks 1,2
    """
    shapes = {"mlp": (INPUTS, 256, 7), "cnn": (16,), "resnet": (8,)}
    made = [Generated(kind, sizes, common.radius) for kind, sizes in shapes.items()]
    return common.experiment("alpha", common.parts([Method.ALPHA_CROWN], made))


@experiment_command(strategies="fsdp,tp,dp,fsdp+dp", ranks="1,2", radius=0.02)
def search(
    common: Common,
    rounds: Annotated[int, typer.Option(help="Rounds of branch and bound.")] = 10,
    batch: Annotated[int, typer.Option(help="Domains bounded in a round, by all ranks.")] = 512,
) -> Experiment:
    """Memory, speed and traffic of branch and bound, the same work under every strategy.

    As `run --fixed-workload`; on a random MLP 256x6 unless a category is named.

    \b
    Example:
      vnncomp-runner experiment search --category mnist_fc --filter '*256x6_prop_1_0.03' \\
        --batch 512 --rounds 10
    """
    workload = Workload(rounds, batch)
    made = [Generated("mlp", (INPUTS, 256, 7), common.radius)]
    return common.experiment("search", common.parts([Method.COMPLETE], made), workload)


def _run(experiment: Experiment, results: Path, name: str | None) -> None:
    now = datetime.now(UTC)
    folder = results / (name or f"{now:%Y%m%dT%H%M%SZ}-{experiment.kind}")
    out = console()

    @contextmanager
    def progress(part: Part, tasks: int) -> Iterator[Observer]:
        out.print(f"{part.method}, {part.ranks} rank(s): {', '.join(part.strategies)}")
        with RunProgress(out, tasks, ()) as observer:
            yield observer

    try:
        run_experiment(experiment, folder, progress)
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. The same command with --run {folder.name} resumes.", err=True)
        raise
    # Pandas takes half a second to import.
    from runner.experiments.experiment_files import write_tables

    for part in write_tables(experiment, folder):
        out.print(part)
    out.print(f"Written: {folder / 'table.md'}, {folder / 'table.csv'}", soft_wrap=True)


def _grown(width: int, ranks: int) -> int:
    """The work of CROWN grows with the cube of the width."""
    cube_root: float = ranks ** (1 / 3)
    return 8 * round(width * cube_root / 8)
