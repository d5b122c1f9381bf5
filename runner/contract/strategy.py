"""A strategy is data: which axes are spread, and over which ranks. Imports no torch: the scheduler
reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.contract.errors import UsageError
from runner.contract.layout import Axis, Layout, Partition


class Engine(StrEnum):
    """Who computes the bounds."""

    DRIVER = "driver"  # runner.engine
    LIRPA = "lirpa"  # auto_LiRPA's own compute_bounds, untouched
    NULL = "null"  # nobody: measures the harness
    TOOL = "tool"  # a program of somebody else's; see runner.contract.verifier


@dataclass(frozen=True)
class Strategy:
    """`sharded` axes are spread over the ranks, all others replicated.

    Without a `layout` each of them is spread over all ranks, however many there are; a layout has
    its own number of ranks. `parallel` strategies run on P ranks; the others always on one.
    `offload`: weights rest in host memory and come to the device block by block. `interval_zones`:
    interval bounds inside Column-Row pairs of layers, as in the paper's TP (arXiv 2606.09377);
    looser, for comparison. `checkpoint`: α-CROWN computes what its gradient needs again instead of
    keeping it.
    """

    name: str
    sharded: frozenset[Axis] = frozenset()
    layout: Layout | None = None
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
        if self.layout is not None and self.sharded != self.layout.axes:
            raise UsageError(f"strategy {self.name}: its layout spreads other axes, {self.layout}")
        if self.layout is None and Axis.FEATURES in self.sharded and len(self.sharded) > 1:
            raise UsageError(
                f"strategy {self.name}: features cannot be combined with another axis on the same "
                "ranks; give each axis ranks of its own, such as tp=2+sp=2"
            )
        if self.offload and Axis.FEATURES in self.sharded:
            raise UsageError(f"strategy {self.name}: offload works on column blocks of weights")

    def ranks_of(self, asked: int) -> int:
        """On how many ranks it runs where so many are asked for."""
        if self.layout is not None:
            return self.layout.ranks
        return asked if self.parallel else 1

    def degree(self, axis: Axis, ranks: int) -> int:
        """Over how many of `ranks` an axis is spread."""
        return len(self.along(axis, ranks)[0])

    def along(self, axis: Axis, ranks: int) -> Partition:
        """Groups of ranks, over each of which an axis is spread."""
        if self.layout is not None:
            self._check(ranks)
            return self.layout.along(axis)
        return _whole(ranks) if axis in self.sharded else _alone(ranks)

    def beside(self, axis: Axis, ranks: int) -> Partition:
        """Groups of ranks that have the same part of an axis."""
        if self.layout is not None:
            self._check(ranks)
            return self.layout.beside(axis)
        return _alone(ranks) if axis in self.sharded else _whole(ranks)

    @property
    def row_axes(self) -> frozenset[Axis]:
        """Axes whose ranks share the rows of start nodes: of specs, and of domains, which nobody
        has before a search. Ranks that share the weights, too, share each product of them instead.
        """
        axes = self.sharded & {Axis.SPECS, Axis.DOMAINS}
        return axes - {Axis.DOMAINS} if self.same_ranks(Axis.WEIGHTS, Axis.DOMAINS) else axes

    def sharers(self, ranks: int) -> Partition:
        """Groups of ranks that share the rows of start nodes."""
        if self.layout is not None:
            self._check(ranks)
            return self.layout.along(*self.row_axes)
        return _whole(ranks) if self.row_axes else _alone(ranks)

    def beside_sharers(self, ranks: int) -> Partition:
        """Groups of ranks that bound the same rows."""
        if self.layout is not None:
            self._check(ranks)
            return self.layout.beside(*self.row_axes)
        return _alone(ranks) if self.row_axes else _whole(ranks)

    def same_ranks(self, one: Axis, other: Axis) -> bool:
        """Whether both are spread, over the same ranks: no rank then shares its part of one with a
        rank that has another part of the other.
        """
        return self.layout is None and {one, other} <= self.sharded

    def _check(self, ranks: int) -> None:
        if self.layout is not None and self.layout.ranks != ranks:
            raise UsageError(
                f"strategy {self.name} has {self.layout.ranks} rank(s), not {ranks}: its degrees "
                f"must multiply to the number of ranks"
            )


def _whole(ranks: int) -> Partition:
    return [range(ranks)]


def _alone(ranks: int) -> Partition:
    return [[rank] for rank in range(ranks)]
