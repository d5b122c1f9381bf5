"""Projected gradient ascent, for every multiplier that a bound is optimised over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 1e-8


class ProjectedAdam:
    """Adam (Kingma & Ba 2015) uphill, then projected to [least, limit]; steps shrink by `decay`.

    Not torch.optim's: that imports torch's compiler at first use (2 s in every fresh process).
    """

    def __init__(
        self,
        values: list[Tensor],
        step: float,
        decay: float,
        momenta: tuple[float, float],
        limits: list[Tensor] | None = None,
        least: list[Tensor] | None = None,
    ) -> None:
        """`limits`: of each value, of its shape; 1 where none are given. `least`: likewise, 0."""
        self.values = values
        self._limits = limits
        self._least = least
        self._first, self._second = momenta
        self._size = step
        self._decay = decay
        self._mean = [torch.zeros_like(value) for value in values]
        self._square = [torch.zeros_like(value) for value in values]
        self._steps = 0

    def step(self, gradients: tuple[Tensor, ...], least: Tensor | float = LEAST) -> None:
        """In place. A value whose gradients stay below `least` (broadcast) moves less than others:
        Adam, which knows no scale, would make full steps of their rounding.
        """
        self._steps += 1
        size = self._size / (1 - self._first**self._steps)
        correction = (1 - self._second**self._steps) ** 0.5
        for value, gradient, mean, square in zip(
            self.values, gradients, self._mean, self._square, strict=True
        ):
            mean.lerp_(gradient, 1 - self._first)
            square.mul_(self._second).addcmul_(gradient, gradient, value=1 - self._second)
            value.addcdiv_(mean, square.sqrt().div_(correction).add_(least), value=size)
        if self._limits is None:
            for value in self.values:
                value.clamp_(0, 1)
        else:
            self._project(self._limits)
        self._size *= self._decay

    def _project(self, limits: list[Tensor]) -> None:
        if self._least is None:
            for value in self.values:
                value.clamp_(min=0)
        else:
            for value, least in zip(self.values, self._least, strict=True):
                torch.maximum(value, least, out=value)
        for value, limit in zip(self.values, limits, strict=True):
            torch.minimum(value, limit, out=value)

    def keep(self, index: Tensor) -> None:
        """Goes on with some of the values' second dimension only, in copies."""
        self.values = [value.detach()[:, index].requires_grad_() for value in self.values]
        self._mean = [mean[:, index] for mean in self._mean]
        self._square = [square[:, index] for square in self._square]
        if self._limits is not None:
            self._limits = [limit[:, index] for limit in self._limits]
        if self._least is not None:
            self._least = [least[:, index] for least in self._least]


@dataclass(frozen=True)
class MovingParts:
    """Parts of multipliers [K, B, V]: the `first` ones, and which of them an ascent moves."""

    first: list[Tensor]
    moves: list[bool]

    def some(self, parts: list[Tensor]) -> list[Tensor]:
        """Those that move."""
        return [part for part, moved in zip(parts, self.moves, strict=True) if moved]

    def all(self, values: list[Tensor]) -> list[Tensor]:
        """With the values of those that move."""
        moved = iter(values)
        parts = zip(self.first, self.moves, strict=True)
        return [next(moved) if moves else part for part, moves in parts]

    def keep(self, found: Tensor, values: list[Tensor], better: Tensor, alive: Tensor) -> None:
        """Writes values that gave `better` bounds [K, B] into the multipliers of all."""
        start, moved = 0, iter(values)
        for part, moves in zip(self.first, self.moves, strict=True):
            at = slice(start, start + part.shape[2])
            if moves:
                before = found[:, alive, at]
                value = next(moved).detach()
                found[:, alive, at] = torch.where(better.unsqueeze(2), value, before)
            start = at.stop

    def select(self, index: Tensor) -> MovingParts:
        """Of some sub-domains."""
        return MovingParts([part[:, index] for part in self.first], self.moves)
