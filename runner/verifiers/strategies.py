"""A strategy is data: one placement per axis. Imports no torch: the scheduler reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runner.contract.errors import UsageError
from runner.contract.vocabulary import StrEnum


class Axis(StrEnum):
    """What can be spread over ranks."""

    WEIGHTS = "weights"  # each rank keeps 1/P of every Linear/Conv weight
    FEATURES = "features"  # each rank keeps the A columns of its own neurons
    SPECS = "specs"  # each rank bounds its own row blocks of each start node
    DOMAINS = "domains"  # each rank bounds its own sub-problems


class Engine(StrEnum):
    """Who computes the bounds."""

    DRIVER = "driver"  # runner.engine
    LIRPA = "lirpa"  # auto_LiRPA's own compute_bounds, untouched
    NULL = "null"  # nobody: measures the harness


@dataclass(frozen=True)
class Strategy:
    """`sharded` axes are spread over the ranks, all others replicated.

    `parallel` strategies run on P ranks; the others always on one. `offload`: weights rest in
    host memory and come to the device block by block. `interval_zones`: interval bounds inside
    Column-Row pairs of layers, as in the paper's TP (arXiv 2606.09377); looser, for comparison.
    `checkpoint`: α-CROWN computes what its gradient needs again instead of keeping it.
    """

    name: str
    sharded: frozenset[Axis] = frozenset()
    engine: Engine = Engine.DRIVER
    parallel: bool = True
    offload: bool = False
    interval_zones: bool = False
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.engine is not Engine.DRIVER and (
            self.sharded or self.offload or self.interval_zones or self.checkpoint
        ):
            raise UsageError(f"strategy {self.name}: only the driver can lay data out")
        if self.sharded and not self.parallel:
            raise UsageError(f"strategy {self.name}: one rank has nothing to shard over")
        if Axis.FEATURES in self.sharded and len(self.sharded) > 1:
            raise UsageError(
                f"strategy {self.name}: features cannot be combined with another axis; "
                "weights are cut with their neurons, and rows move in lockstep"
            )
        if self.offload and Axis.FEATURES in self.sharded:
            raise UsageError(f"strategy {self.name}: offload works on column blocks of weights")


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("baseline", parallel=False),
        Strategy("fsdp", frozenset({Axis.WEIGHTS})),
        Strategy("tp", frozenset({Axis.FEATURES})),
        Strategy("sp", frozenset({Axis.SPECS})),
        Strategy("fsdp+sp", frozenset({Axis.WEIGHTS, Axis.SPECS})),
        Strategy("dp", frozenset({Axis.DOMAINS})),
        Strategy("sp+dp", frozenset({Axis.SPECS, Axis.DOMAINS})),
        Strategy("fsdp+dp", frozenset({Axis.WEIGHTS, Axis.DOMAINS})),
        Strategy("tp-ibp", frozenset({Axis.FEATURES}), interval_zones=True),
        Strategy("offload", parallel=False, offload=True),
        Strategy("lirpa", engine=Engine.LIRPA, parallel=False),
        Strategy("null", engine=Engine.NULL),
    )
}


# After the name of any strategy of the driver.
CHECKPOINT = "+checkpoint"


def strategy_named(name: str) -> Strategy:
    """A strategy of STRATEGIES, or one with CHECKPOINT after its name.

    Raises UsageError that lists the known names.
    """
    known = STRATEGIES.get(name.removesuffix(CHECKPOINT))
    if known is None:
        names = ", ".join(STRATEGIES)
        raise UsageError(
            f"unknown strategy {name!r}; known: {names}, each also with {CHECKPOINT} after it"
        )
    return replace(known, name=name, checkpoint=True) if name.endswith(CHECKPOINT) else known
