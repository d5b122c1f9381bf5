"""`vnncomp-runner bench`: the same work under every strategy, measured side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from runner.bench.experiment import (
    Experiment,
    Generated,
    Part,
    parts_growing,
    parts_over,
    run_experiment,
)
from runner.cli.progress import RunProgress
from runner.cli.terminal import console, exit_codes
from runner.errors import UsageError
from runner.schedule import Observer
from runner.vocabulary import Method
from runner.workload import Workload

INPUTS = 784  # as MNIST

bench = typer.Typer(
    help="Experiments: the same work under every strategy over several numbers of ranks.\n\n"
    "Each writes a folder of runs with table.md and table.csv, and resumes with --run NAME.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Strategies = Annotated[str, typer.Option(help="Comma-separated; baseline is always there.")]
Ranks = Annotated[str, typer.Option(help="Comma-separated numbers of processes.")]
Methods = Annotated[str, typer.Option(help="Comma-separated: ibp, crown, alpha-crown.")]
Categories = Annotated[
    list[Path] | None,
    typer.Option("--category", help="Real networks instead of random ones; may be repeated."),
]
Filter = Annotated[str | None, typer.Option("--filter", metavar="GLOB", help="As of `run`.")]
Limit = Annotated[int | None, typer.Option(min=1, help="As of `run`.")]
Radius = Annotated[float, typer.Option(min=0, help="L∞ radius of the input box.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="Of one strategy on one instance.")]
Results = Annotated[Path, typer.Option(metavar="DIR", help="Where the folder is made.")]
Name = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Name of the folder, to resume it.")
]
Seed = Annotated[int, typer.Option(help="Of the random networks.")]
Repeat = Annotated[int, typer.Option(min=1, help="Times are medians of so many.")]


@bench.command()
def memory(
    width: Annotated[str, typer.Option(help="Comma-separated widths of layers.")] = "256,1024,4096",
    depth: Annotated[str, typer.Option(help="Comma-separated numbers of layers.")] = "4,8",
    strategies: Strategies = "fsdp,tp,sp,fsdp+sp",
    ranks: Ranks = "1,2,4",
    methods: Methods = "crown",
    radius: Radius = 5e-4,
    timeout: Timeout = 600,
    results: Results = Path("results"),
    name: Name = None,
    seed: Seed = 0,
    repeat: Repeat = 1,
) -> None:
    """Random MLPs: resting and peak bytes per rank, time and traffic.

    \b
    Example:
      vnncomp-runner bench memory --width 4096 --depth 8 --ranks 1,2,4
    """
    with exit_codes():
        networks = [
            Generated("mlp", (INPUTS, w, d), radius) for w in _counts(width) for d in _counts(depth)
        ]
        parts = parts_over(_methods(methods), _counts(ranks), _words(strategies), networks)
        _run(Experiment("memory", tuple(parts), timeout, seed=seed, repeat=repeat), results, name)


@bench.command()
def tightness(
    category: Categories = None,
    filter_glob: Filter = None,
    limit: Limit = None,
    strategies: Strategies = "tp,tp-ibp,lirpa",
    ranks: Ranks = "1,2",
    methods: Methods = "crown",
    radius: Radius = 0.02,
    timeout: Timeout = 600,
    results: Results = Path("results"),
    name: Name = None,
    seed: Seed = 0,
) -> None:
    """Lower bounds of every strategy against baseline's, on MLPs 256x2, 256x4 and 256x6.

    \b
    Example:
      vnncomp-runner bench tightness --category mnist_fc --filter '*prop_1_0.03*'
    """
    with exit_codes():
        # 256xD of VNN-COMP counts hidden layers.
        made = [Generated("mlp", (INPUTS, 256, hidden + 1), radius) for hidden in (2, 4, 6)]
        parts = parts_over(_methods(methods), _counts(ranks), _words(strategies), category or made)
        experiment = Experiment("tightness", tuple(parts), timeout, filter_glob, limit, seed)
        _run(experiment, results, name)


@bench.command()
def scaling(
    category: Categories = None,
    filter_glob: Filter = None,
    limit: Limit = None,
    width: Annotated[int, typer.Option(min=1, help="Of the random MLP, at P=1.")] = 512,
    depth: Annotated[int, typer.Option(min=2, help="Of the random MLP.")] = 6,
    weak: Annotated[
        bool, typer.Option(help="Networks grow with P: P times the work, width * P^(1/3).")
    ] = False,
    strategies: Strategies = "sp,fsdp+sp,fsdp,tp",
    ranks: Ranks = "1,2,4",
    methods: Methods = "crown,alpha-crown",
    radius: Radius = 5e-3,
    timeout: Timeout = 600,
    results: Results = Path("results"),
    name: Name = None,
    seed: Seed = 0,
    repeat: Repeat = 1,
) -> None:
    """Speed-up, efficiency and traffic over P, one thread a rank.

    \b
    Examples:
      vnncomp-runner bench scaling --ranks 1,2
      vnncomp-runner bench scaling --category mnist_fc --filter '*256x6_prop_1_0.03' --repeat 3
    """
    with exit_codes():
        if weak and category:
            raise UsageError("--weak makes its own networks; leave --category out")
        counts, by, wanted = _counts(ranks), _methods(methods), _words(strategies)
        if weak:
            grown = {p: Generated("mlp", (INPUTS, _grown(width, p), depth), radius) for p in counts}
            parts = parts_growing(by, grown, wanted)
        else:
            made = Generated("mlp", (INPUTS, width, depth), radius)
            parts = parts_over(by, counts, wanted, category or [made])
        kind = "weak-scaling" if weak else "scaling"
        experiment = Experiment(
            kind, tuple(parts), timeout, filter_glob, limit, seed, repeat=repeat
        )
        _run(experiment, results, name)


@bench.command()
def alpha(
    category: Categories = None,
    filter_glob: Filter = None,
    limit: Limit = None,
    strategies: Strategies = "fsdp,tp,sp,fsdp+sp,baseline+checkpoint,lirpa",
    ranks: Ranks = "1,2",
    radius: Radius = 5e-3,
    timeout: Timeout = 600,
    results: Results = Path("results"),
    name: Name = None,
    seed: Seed = 0,
) -> None:
    """Bytes of α, A and weights on an MLP, a CNN and a ResNet, of every strategy and of lirpa.

    \b
    Example:
      vnncomp-runner bench alpha --ranks 1,2
    """
    with exit_codes():
        made = [
            Generated("mlp", (INPUTS, 256, 7), radius),
            Generated("cnn", (16,), radius),
            Generated("resnet", (8,), radius),
        ]
        parts = parts_over(
            [Method.ALPHA_CROWN], _counts(ranks), _words(strategies), category or made
        )
        experiment = Experiment("alpha", tuple(parts), timeout, filter_glob, limit, seed)
        _run(experiment, results, name)


@bench.command()
def search(
    category: Categories = None,
    filter_glob: Filter = None,
    limit: Limit = None,
    rounds: Annotated[int, typer.Option(help="Rounds of branch and bound.")] = 10,
    batch: Annotated[int, typer.Option(help="Domains bounded in a round, by all ranks.")] = 512,
    strategies: Strategies = "fsdp,tp,dp,fsdp+dp",
    ranks: Ranks = "1,2",
    radius: Radius = 2e-2,
    timeout: Timeout = 600,
    results: Results = Path("results"),
    name: Name = None,
    seed: Seed = 0,
    repeat: Repeat = 1,
) -> None:
    """Memory, speed and traffic of branch and bound, the same work under every strategy.

    As `run --fixed-workload`; on a random MLP 256x6 unless a category is named.

    \b
    Example:
      vnncomp-runner bench search --category mnist_fc --filter '*256x6_prop_1_0.03' \\
        --batch 512 --rounds 10
    """
    with exit_codes():
        made = Generated("mlp", (INPUTS, 256, 7), radius)
        parts = parts_over(
            [Method.COMPLETE], _counts(ranks), _words(strategies), category or [made]
        )
        workload = Workload(rounds, batch)
        experiment = Experiment(
            "search",
            tuple(parts),
            timeout,
            filter_glob,
            limit,
            seed,
            repeat=repeat,
            workload=workload,
        )
        _run(experiment, results, name)


def _run(experiment: Experiment, results: Path, name: str | None) -> None:
    now = datetime.now(timezone.utc)
    folder = results / (name or f"{now:%Y%m%dT%H%M%SZ}-bench-{experiment.kind}")
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
    from runner.bench.files import write_tables

    for part in write_tables(experiment, folder):
        out.print(part)
    out.print(f"Written: {folder / 'table.md'}, {folder / 'table.csv'}", soft_wrap=True)


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _counts(text: str) -> list[int]:
    """Raises UsageError for what is not a list of positive whole numbers."""
    words = _words(text)
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"{text!r}: a comma-separated list of positive whole numbers is needed")
    return [int(word) for word in words]


def _methods(text: str) -> list[Method]:
    known: Sequence[str] = (Method.IBP, Method.CROWN, Method.ALPHA_CROWN)
    wrong = [word for word in _words(text) if word not in known]
    if wrong:
        raise UsageError(f"unknown method {wrong[0]!r}; known: {', '.join(known)}")
    return [Method(word) for word in _words(text)]


def _grown(width: int, ranks: int) -> int:
    """The work of CROWN grows with the cube of the width."""
    cube_root: float = ranks ** (1 / 3)
    return 8 * round(width * cube_root / 8)
