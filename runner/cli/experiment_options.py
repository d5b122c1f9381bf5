"""The options that every experiment of `vnncomp-runner experiment` has, written once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.options import (
    ChosenDevice,
    Filter,
    Limit,
    Repeat,
    Results,
    RunName,
    Seed,
    WorkMemory,
)
from runner.contract.errors import UsageError
from runner.contract.vocabulary import Device, Method
from runner.contract.workload import Workload
from runner.experiments.experiment import Experiment, Generated, Part, parts_over

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
    filter_glob: Filter = None
    limit: Limit = None
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Of one strategy on one instance.")
    ] = 600
    results: Results = Path("results")
    name: RunName = None
    seed: Seed = 0
    repeat: Repeat = 1
    work_memory: WorkMemory = None
    device: ChosenDevice = Device.AUTO

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
