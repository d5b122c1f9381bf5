"""Which open boxes α bounds once more: those near enough to their thresholds, where that pays."""

from __future__ import annotations

import torch
from torch import Tensor

# Boxes that are not bounded later for each one that is closed now: its halves, at least.
SAVED = 2.0
# Trials of which so many close at first, until that is known: of a single row, and of a mix, for
# which plain bounds have no row at all.
FIRST_RATE, FIRST_RATE_OF_MIXES = 0.1, 1.0
# What is not tried may pay later: by how much the limit and the rate grow each time.
GROWTH, HOPE = 1.1, 1.02


class Near:
    """The greatest gap at which α is tried, and the share of trials that close a box."""

    def __init__(self, *, mixes: bool = False) -> None:
        self._limit = torch.inf
        self._rate = FIRST_RATE_OF_MIXES if mixes else FIRST_RATE

    def chosen(self, margins: Tensor) -> Tensor:
        """Of margins [N, disjuncts] of what is open; what is not has inf."""
        return (margins <= 0) & (margins > -self._limit)

    def pays(self, price: float) -> bool:
        """Whether trials at this price, in boxes that are bounded, are worth it."""
        return SAVED * self._rate >= price

    def skipped(self) -> None:
        """Nothing was near, or it did not pay."""
        self._rate = min(1.0, HOPE * self._rate)
        self._limit *= GROWTH

    def learn(self, margins: Tensor, closed: int, price: float) -> None:
        """Of margins [M] that were tried, at least one, how many got above 0."""
        rate = closed / len(margins)
        self._rate = (self._rate + rate) / 2
        if SAVED * rate < price:
            self._limit = float(-margins.median())
        else:
            self._limit *= GROWTH
