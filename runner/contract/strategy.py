"""A strategy is data: one placement per axis. Imports no torch: the scheduler reads it."""

from __future__ import annotations

from dataclasses import dataclass

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
    TOOL = "tool"  # a program of somebody else's; see runner.contract.verifier


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
