"""Which planes above ReLUs serve a bound best: a game between planes and a point of the box.

Planes are to make the least value over the box as great as can be; the point where it is taken
answers. Above the average of such points each plane is the facet that is lowest there, and planes
are averages of facets: fictitious play, or Frank and Wolfe's steps on the least value.

In the box's own measure, where inputs lie in [-1, 1], a form is h + w t. For 0 <= g <= |w|, the
plane of slopes g sign(w) is lowest where g adds up to half of the form's greatest value; the lowest
facet takes that from inputs in the order of their heights t sign(w), a knapsack's greedy choice. It
is made for levels of heights: each is taken as a whole, in part, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.planes import UpperForms

STEPS = 12
LEVELS = 32


@dataclass(frozen=True)
class Game:
    """outputs [P] <= 0: a bound's coefficients of the ReLUs' outputs; rest [inputs]: those of the
    input that stay, whatever the planes are.
    """

    outputs: Tensor
    rest: Tensor


def fitted(forms: UpperForms, game: Game) -> Tensor:
    """Slopes [P, inputs] of planes above ReLUs of these forms."""
    middle, radius = (part.flatten() for part in forms.box.ball)
    at = _seen(forms.rows)
    heights = -(forms.rows @ middle + forms.constants.to(forms.rows.dtype))
    knapsack = _Knapsack.of(-forms.rows.gather(1, at) * radius[at], heights)
    rest, sides = game.rest * radius, game.outputs[:, None] * knapsack.sides
    average = torch.zeros_like(rest)
    taken = knapsack.weights * knapsack.shares[:, None]  # The triangle's is the same of each input.
    for step in range(STEPS):
        total = rest.index_add(0, at.flatten(), (sides * taken).flatten())
        average = torch.lerp(average, -total.sign(), 2 / (step + 2))
        taken = torch.lerp(taken, knapsack.facet(average[at]), 2 / (step + 3) if step else 0.5)
    slopes = taken * knapsack.sides
    slopes = torch.where(radius[at] > 0, slopes / radius[at], 0.0)
    return torch.zeros_like(forms.rows).scatter_(1, at, slopes)


@dataclass(frozen=True)
class _Knapsack:
    """weights and sides [P, W]: |w| and sign(w); room [P]: what g adds up to; shares [P]: of all of
    |w|.
    """

    weights: Tensor
    sides: Tensor
    room: Tensor
    shares: Tensor

    @staticmethod
    def of(slopes: Tensor, heights: Tensor) -> _Knapsack:
        weights = slopes.abs()
        all_ = weights.sum(1)
        room = torch.minimum((heights + all_) / 2, all_).clamp(min=0)
        return _Knapsack(weights, slopes.sign(), room, torch.where(all_ > 0, room / all_, 0.0))

    def facet(self, points: Tensor) -> Tensor:
        """g [P, W] of the facets that are lowest at points [P, W]."""
        heights = torch.addcmul(torch.ones_like(points), points, self.sides)
        levels = heights.mul_(LEVELS / 2).long().clamp_(0, LEVELS - 1)
        there = points.new_zeros((len(points), LEVELS)).scatter_add_(1, levels, self.weights)
        before = there.cumsum(1) - there
        shares = ((self.room[:, None] - before) / there).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
        return shares.gather(1, levels).mul_(self.weights)


def _seen(rows: Tensor) -> Tensor:
    """Which inputs [P, W] rows [P, inputs] see, and some more where others see more."""
    seen = rows != 0
    width = max(1, int(seen.sum(1).max()))
    return seen.to(rows.dtype).topk(width, 1).indices
