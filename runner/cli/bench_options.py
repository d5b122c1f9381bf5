"""The options that every experiment of `vnncomp-runner bench` has, written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Device, Method
from runner.contract.workload import Workload
from runner.experiments.experiment import Experiment, Generated, Part, parts_over

T = TypeVar("T")

Radius = Annotated[float, typer.Option(min=0, help="L∞ radius of a random network's input box.")]


@dataclass(frozen=True)
class Common:
    """What was asked for. Each experiment has its own defaults of the first three."""

    strategies: Annotated[str, typer.Option(help="Comma-separated; baseline is always there.")]
    ranks: Annotated[str, typer.Option(help="Comma-separated numbers of processes.")]
    radius: Radius
    category: Annotated[
        list[Path] | None,
        typer.Option(help="Real networks instead of random ones; may be repeated."),
    ] = None
    filter_glob: Annotated[
        str | None, typer.Option("--filter", metavar="GLOB", help="As of `run`.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="As of `run`.")] = None
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Of one strategy on one instance.")
    ] = 600
    results: Annotated[Path, typer.Option(metavar="DIR", help="Where the folder is made.")] = Path(
        "results"
    )
    name: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Name of the folder, to resume it.")
    ] = None
    seed: Annotated[int, typer.Option(help="Of the random networks.")] = 0
    repeat: Annotated[int, typer.Option(min=1, help="Times are medians of so many.")] = 1
    work_memory: Annotated[float | None, typer.Option(metavar="MIB", help="As of `run`.")] = None
    device: Annotated[Device, typer.Option(help="As of `run`.")] = Device.AUTO

    def parts(self, methods: Sequence[Method], made: Sequence[Generated]) -> Iterable[Part]:
        """Over all ranks, on the categories or else on the networks that are `made`."""
        return parts_over(
            methods, counts(self.ranks), words(self.strategies), self.category or made
        )

    def experiment(
        self, kind: str, parts: Iterable[Part], workload: Workload | None = None
    ) -> Experiment:
        return Experiment(
            kind=kind,
            parts=tuple(parts),
            timeout_s=self.timeout,
            filter=self.filter_glob,
            limit=self.limit,
            seed=self.seed,
            repeat=self.repeat,
            workload=workload,
            work_memory_mib=self.work_memory,
            device=self.device,
        )


def with_common(
    command: Callable[..., T], strategies: str, ranks: str, radius: float
) -> Callable[..., tuple[T, Common]]:
    """`command` as Typer is to see it: with the options of `Common`, which it gets as one."""
    defaults = {"strategies": strategies, "ranks": ranks, "radius": radius}
    common = [
        option.replace(kind=option.KEYWORD_ONLY, default=defaults.get(option.name, option.default))
        for option in inspect.signature(Common, eval_str=True).parameters.values()
    ]
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @wraps(command)
    def whole(**options: object) -> tuple[T, Common]:
        asked = Common(**{option.name: options.pop(option.name) for option in common})  # type: ignore[arg-type]
        return command(asked, **options), asked

    whole.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*(option.replace(kind=option.KEYWORD_ONLY) for option in own), *common]
    )
    return whole


def words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def counts(text: str) -> list[int]:
    """Raises UsageError for what is not a list of positive whole numbers."""
    found = words(text)
    if not found or not all(word.isdecimal() and int(word) > 0 for word in found):
        raise UsageError(f"{text!r}: a comma-separated list of positive whole numbers is needed")
    return [int(word) for word in found]


def bound_methods(text: str) -> list[Method]:
    """Raises UsageError for what is no way to bound."""
    known: Sequence[str] = (Method.IBP, Method.CROWN, Method.ALPHA_CROWN)
    wrong = [word for word in words(text) if word not in known]
    if wrong:
        raise UsageError(f"unknown method {wrong[0]!r}; known: {', '.join(known)}")
    return [Method(word) for word in words(text)]
