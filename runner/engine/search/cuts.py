"""Which input a box is cut at: several ways, all tried on the way; the one that gains most goes on.

A way weighs the width of each input by a power of how steep the linear bounds are in it. Steep
inputs alone give the least bounds in one cut, but leave others wide for which the bounds stay
loose; what is right differs from network to network, and shows in the first hundred boxes. Where
it is known how far each input moves the neurons that a box leaves open, that is a way of its own:
bounds are loose because of those.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Of steepness, by way; the first is what is taken until another one is clearly better.
POWERS = (0.5, 1.0, 0.0)
# Before those, where it is known: how far neurons that are open go along an input.
OPENING = math.nan
# The ways of one box after the other, before one is preferred.
TRIED = (0, 1, 0, 2)
TRIED_OPENING = (0, 1, 0, 2, 0, 3)
# Boxes of each way that are looked at before one is preferred.
LEAST_SEEN = 32
# Of so many boxes, one is then still cut in another way.
STILL_TRIED = 16
# What is left of a gap must be less by this factor before the first way is left.
CLEARLY = 0.95
# What is known of older boxes counts that much less after each batch.
MEMORY = 0.9
# Of the greatest steepness, what every input has at least, so that each is cut at last.
LEAST_STEEP = 1e-4
# The way of a box that was not cut from another.
NO_WAY = -1


class Cuts:
    """Of each way, what boxes that it cut still miss of what their parents missed. Without
    `several`, the first way is the only one; with `opening`, that is the neurons that are open.
    """

    def __init__(self, *, several: bool = True, opening: bool = False) -> None:
        self._several = several
        self._powers = (OPENING, *POWERS) if opening else POWERS
        self._tried = TRIED_OPENING if opening else TRIED
        self._left = torch.zeros(len(self._powers), dtype=torch.float64)
        self._seen = torch.zeros(len(self._powers), dtype=torch.float64)
        self._counts = torch.zeros(len(self._powers), dtype=torch.long)
        self._others = 0

    @property
    def missing(self) -> tuple[float, float]:
        """Of boxes that were cut from others, recent ones before all: the sum of what each still
        misses of what its parent missed, and their number.
        """
        return float(self._left.sum()), float(self._seen.sum())

    @property
    def better(self) -> int | None:
        """None while that is open."""
        if int(self._counts.min()) < LEAST_SEEN:
            return None
        left = self._left / self._seen.clamp(min=1e-9)
        left[0] *= CLEARLY
        return int(left.argmin())

    def ways(self, count: int) -> Tensor:
        """Of so many boxes [N] in turn."""
        if not self._several:
            return torch.zeros(count, dtype=torch.int8)
        better = self.better
        if better is None:
            tried = torch.tensor(self._tried, dtype=torch.int8)
            return tried.repeat(count // len(tried) + 1)[:count]
        ways = torch.full((count,), better, dtype=torch.int8)
        for index in range(STILL_TRIED // 2, count, STILL_TRIED):
            self._others += 1
            ways[index] = (better + 1 + self._others % (len(self._powers) - 1)) % len(self._powers)
        return ways

    def learn(self, way: Tensor, before: Tensor, after: Tensor) -> None:
        """Of boxes [N]: the way that each was cut, and the least margins of its parent and of its
        own, inf where nothing is open.
        """
        way, before, after = way.cpu(), before.cpu().double(), after.cpu().double()
        known = (way != NO_WAY) & before.isfinite() & (before < 0)
        left = torch.where(after > 0, 0.0, after / before).clamp(0, 1).nan_to_num(nan=1.0)[known]
        index, ones = way[known].long(), torch.ones_like(left)
        self._left = (MEMORY * self._left).index_add(0, index, left)
        self._seen = (MEMORY * self._seen).index_add(0, index, ones)
        self._counts.index_add_(0, index, ones.long())

    def worth(self, way: Tensor, steep: Tensor, opening: Tensor | None, width: Tensor) -> Tensor:
        """What a cut of each input promises [N, inputs], by the way of each box [N]: `steep` are
        the linear bounds, `opening` goes all that is open, for each unit of an input, where known.
        """
        powers = torch.tensor(self._powers, dtype=torch.float64, device=steep.device)[way.long()]
        of_steep = powers.nan_to_num(nan=POWERS[0])
        if opening is None:
            return worth(of_steep, steep, width)
        by_open = powers.isnan() & (opening > 0).any(1)
        steep = torch.where(by_open[:, None], opening.to(steep), steep)
        return worth(torch.where(by_open, 1.0, of_steep), steep, width)


def worth(power: Tensor, steep: Tensor, width: Tensor) -> Tensor:
    """What a cut of each input promises [N, inputs]: its width times a power [N] of how `steep`
    something is in it.
    """
    steep = steep.nan_to_num(nan=1.0)
    share = steep / steep.amax(1, keepdim=True).clamp(min=1e-30)
    return share.clamp(min=LEAST_STEEP) ** power[:, None].to(share) * width.to(share)
