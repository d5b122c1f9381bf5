"""A strategy is data: one placement per axis. Imports no torch: the scheduler reads it."""

from __future__ import annotations

from dataclasses import dataclass

from runner.errors import UsageError
from runner.vocabulary import StrEnum


class Axis(StrEnum):
    """What can be spread over ranks."""

    WEIGHTS = "weights"  # each rank keeps 1/P of every Linear/Conv weight
    FEATURES = "features"  # each rank keeps the A columns of its own neurons
    SPECS = "specs"  # each rank bounds its own row blocks of each start node
    DOMAINS = "domains"  # each rank bounds its own sub-problems


class Engine(StrEnum):
    """Who computes the bounds."""

    DRIVER = "driver"  # runner.bounds
    LIRPA = "lirpa"  # auto_LiRPA's own compute_bounds, untouched
    NULL = "null"  # nobody: measures the harness


@dataclass(frozen=True)
class Strategy:
    """`sharded` axes are spread over the ranks, all others replicated.

    `parallel` strategies run on P ranks; the others always on one.
    """

    name: str
    sharded: frozenset[Axis] = frozenset()
    engine: Engine = Engine.DRIVER
    parallel: bool = True

    def __post_init__(self) -> None:
        if self.sharded and (self.engine is not Engine.DRIVER or not self.parallel):
            raise UsageError(f"strategy {self.name}: only the driver shards, and only over ranks")


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("baseline", parallel=False),
        Strategy("fsdp", frozenset({Axis.WEIGHTS})),
        Strategy("tp", frozenset({Axis.FEATURES})),
        Strategy("lirpa", engine=Engine.LIRPA, parallel=False),
        Strategy("null", engine=Engine.NULL),
    )
}


def strategy_named(name: str) -> Strategy:
    """Raises UsageError that lists the known names."""
    try:
        return STRATEGIES[name]
    except KeyError:
        known = ", ".join(STRATEGIES)
        raise UsageError(f"unknown strategy {name!r}; known: {known}") from None
