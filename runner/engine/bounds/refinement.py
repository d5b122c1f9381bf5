"""Which bounds of layers are worth rows of their own, and until when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from runner.engine.bounds.interval import Interval

# Whether passes that other ranks make beside this one's may end, given whether its own may.
Finished = Callable[[bool], bool]


class Depth(NamedTuple):
    """How far trees grow: `splits` of each row, at most.

    trial: with how many they are tried on some neurons of a layer before all; 0: at once. within:
    the nodes that they may grow at; None: all.
    """

    splits: int
    trial: int
    within: frozenset[str] | None = None


class Trees(Protocol):
    """Bounds of neurons by more than one pass for each."""

    @property
    def depth(self) -> Depth: ...

    @property
    def grown(self) -> set[str]:
        """The nodes where they were worth it, which whoever asks for them adds."""
        ...

    @property
    def passes(self) -> int:
        """How often they go back from a row, at most, and forth again."""
        ...

    def most_neurons(self, name: str, intervals: dict[str, Interval]) -> int:
        """How many of a node at once, at most; the same on all ranks."""
        ...

    def lower(
        self,
        name: str,
        neurons: Tensor,
        intervals: dict[str, Interval],
        finished: Finished,
        splits: int | None = None,
    ) -> Tensor:
        """Lower bounds [2 N, 1], in float64, of flat neurons [N] of a node and of their negatives;
        `intervals`: of all nodes before it, over one box [1, *shape]. `splits`: of each row, at
        most; None: those of `depth`.
        """
        ...


@dataclass(frozen=True)
class Refinement:
    """For which neurons of start nodes rows of their own are bounded, and until when.

    wanted: by node, flat neurons [n]; all of a node that is not named. over: asked before each
    block of rows; blocks after that keep the bounds that are there. trees: what bounds the rows of
    start nodes behind ReLUs, in place of α-CROWN. idle: start nodes whose rows have no α.
    """

    wanted: Mapping[str, Tensor] = field(default_factory=dict)
    over: Callable[[], bool] = lambda: False
    trees: Trees | None = None
    idle: frozenset[str] = frozenset()


# Interval bounds and forms alone.
NO_REFINEMENT = Refinement(over=lambda: True)
