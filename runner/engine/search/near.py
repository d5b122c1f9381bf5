"""Which open boxes α bounds once more: those near enough to their thresholds, where that pays."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

# Boxes that are not bounded later for each one that is closed now: its halves, at least.
SAVED = 2.0
# Share of the trials that are taken to close until that is known: of a single row, of several that
# may be mixed, and of such in whose mixes much cancels.
SINGLE, SEVERAL, CANCELLING = 0.1, 0.25, 1.0
# What is not tried may pay later: by how much the limit and the rate grow each time.
GROWTH, HOPE = 1.1, 1.1
# Where a box is dear, what is tried is no further from its threshold than this times what α gained
# in the last one.
FURTHER = 2.0
# What earlier batches count beside the last.
MEMORY = 0.25


class Trials(Protocol):
    """Of which open boxes α is tried."""

    def chosen(self, margins: Tensor) -> Tensor:
        """Of margins [N, disjuncts] of what is open; inf of what is not, -inf without a bound."""
        ...

    def pays(self, price: float) -> bool:
        """Whether trials at this price, in boxes that are bounded, are worth it."""
        ...

    def skipped(self) -> None:
        """Nothing was chosen, or it did not pay."""
        ...

    def learn(self, margins: Tensor, found: Tensor, price: float) -> None:
        """Of margins [M] that were tried, at least one, what α has found [M]."""
        ...


class Near:
    """The greatest gap at which α is tried, and the share of trials that close a box."""

    def __init__(self, rate: float = SINGLE) -> None:
        self._limit = torch.inf
        self._rate = rate

    def chosen(self, margins: Tensor) -> Tensor:
        return (margins <= 0) & (margins > -self._limit)

    def pays(self, price: float) -> bool:
        return SAVED * self._rate >= price

    def skipped(self) -> None:
        self._rate = min(1.0, HOPE * self._rate)
        self._limit *= GROWTH

    def learn(self, margins: Tensor, found: Tensor, price: float) -> None:
        rate = int((found > 0).sum()) / len(margins)
        self._rate = MEMORY * self._rate + (1 - MEMORY) * rate
        if SAVED * rate < price:
            self._limit = float(-margins.median())
        else:
            self._limit *= GROWTH


class Reach:
    """Where a box costs many times what α on it does: whatever is open is tried, as far as α moves
    bounds.
    """

    def __init__(self) -> None:
        self._limit = torch.inf

    def chosen(self, margins: Tensor) -> Tensor:
        return (margins <= 0) & (margins > -self._limit)

    def pays(self, price: float) -> bool:
        return price < torch.inf

    def skipped(self) -> None:
        self._limit *= GROWTH

    def learn(self, margins: Tensor, found: Tensor, price: float) -> None:
        gain = float((found - margins).nan_to_num(0.0).max())
        self._limit = FURTHER * gain if gain > 0 else float(-margins.max())
