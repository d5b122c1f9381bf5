"""How often a dear box is cut before its parts are bounded: as often as it will take anyway.

What a bound misses of the least value that was seen in its box is its gap. A cut leaves a share of
the gap, and a box is excluded once its gap is less than that value. Parts that will stay open are
not worth the rows that would say so.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# At most so many cuts at once.
MOST_CUTS = 3
# Of its gap, what a cut is taken to leave before that is known: little, as a cut too many costs as
# much as one too few; and what it leaves at least and at most.
FIRST_LEFT, LEAST_LEFT, MOST_LEFT = 0.25, 0.05, 0.95
# Of a cut: what may be missing at the last.
SLACK = 0.25


class Foresight:
    """Of the boxes of one search, which are bounded one by one."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def cuts(self, depth: int, margins: Tensor, nearest: Tensor) -> int:
        """Of a box after so many cuts, that stays open: its margins [disjuncts], inf where one is
        closed, and the least values [disjuncts] that were seen in it, by how much they are above
        their limits.
        """
        gap = nearest - margins
        share = torch.where(margins < torch.inf, nearest / gap, torch.inf)
        worst = int(share.argmin())
        least, missed = float(share[worst]), float(gap[worst])
        if not (0 < least < 1 and math.isfinite(missed)):
            return 1
        needed = math.log(least) / math.log(self._left(depth, missed)) - SLACK
        return min(max(math.ceil(needed), 1), MOST_CUTS)

    def _left(self, depth: int, gap: float) -> float:
        """What each cut has left, from the first box that was seen to this one."""
        first_depth, first_gap = self._first = self._first or (depth, gap)
        if depth <= first_depth:
            return FIRST_LEFT
        left = math.pow(gap / first_gap, 1 / (depth - first_depth))
        return min(max(left, LEAST_LEFT), MOST_LEFT)
