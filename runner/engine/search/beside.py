"""Which boxes rows bound as well, of those that curves leave open: all where rows close more for
what they cost, else a few now and then, to see.
"""

from __future__ import annotations

from torch import Tensor

# What rows of a box cost, in boxes that are bounded by curves.
PRICE = 2.0
# Boxes that need no bounds for each one that is closed: its halves, at least.
SAVED = 2.0
# One of so many boxes, in one of so many batches, where rows do not pay.
STILL_TRIED, STILL_LOOKED = 16, 4
# What is known of older batches counts that much less after each.
MEMORY = 0.5


class Beside:
    """What share of boxes curves close, and rows of those that are left."""

    def __init__(self) -> None:
        self._by_curves = self._by_rows = 0.0
        self._batches = 0

    @property
    def pays(self) -> bool:
        return self._by_rows > PRICE * min(self._by_curves, 1 / SAVED)

    def chosen(self, margins: Tensor) -> Tensor:
        """Of a batch, by its margins [N, disjuncts] after curves, inf where closed: numbers of
        boxes.
        """
        rest = (margins <= 0).any(1).nonzero()[:, 0]
        closed = 1 - len(rest) / len(margins)
        self._by_curves = MEMORY * self._by_curves + (1 - MEMORY) * closed
        if self.pays:
            return rest
        self._batches += 1
        look = self._batches % STILL_LOOKED == 0
        return rest[STILL_TRIED // 2 :: STILL_TRIED] if look else rest[:0]

    def learn(self, tried: int, closed: int) -> None:
        """Of boxes that rows bounded too."""
        self._by_rows = MEMORY * self._by_rows + (1 - MEMORY) * closed / tried
