"""Which open boxes α bounds once more: those near enough to their thresholds, as measured."""

from __future__ import annotations

import torch
from torch import Tensor

# Boxes that are not bounded later for each one that is closed now: its halves, at least.
SAVED = 2.0
GROWTH = 1.25


class Near:
    """The greatest gap below a threshold that a trial of α has paid for."""

    def __init__(self) -> None:
        self._limit = torch.inf

    def chosen(self, margins: Tensor) -> Tensor:
        """Of margins [N, disjuncts] of what is open; what is not has inf."""
        return (margins <= 0) & (margins > -self._limit)

    def learn(self, margins: Tensor, closed: int, price: float) -> None:
        """Of margins [M] that were tried, how many got above 0; `price`: of a trial, in boxes."""
        if len(margins) and SAVED * closed < price * len(margins):
            self._limit = float(-margins.median())
        else:
            self._limit *= GROWTH
