"""Where a strategy puts one node of a network, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NodePlan:
    """One node under a strategy.

    `weight_bytes`: of each rank. `features`: how many neurons or channels of the node each rank
    keeps, None where all have all. `moves`: what one backward product sends, in words;
    `row_bytes`: its bytes for each row of A, over all ranks that bound the row together;
    `weight_moved_bytes`: what a block of rows costs whatever its length.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    weight_bytes: tuple[int, ...]
    features: tuple[int, ...] | None
    moves: str
    row_bytes: int = 0
    weight_moved_bytes: int = 0
    interval_only: bool = False
