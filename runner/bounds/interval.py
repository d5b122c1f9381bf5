"""Boxes of values: what every start node's bounds are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """lower, upper: [B, *shape], lower <= upper."""

    lower: Tensor
    upper: Tensor

    @property
    def centre(self) -> Tensor:
        return (self.upper + self.lower) / 2

    @property
    def radius(self) -> Tensor:
        return (self.upper - self.lower) / 2

    def intersect(self, other: Interval) -> Interval:
        """Both hold, so the tighter of each side holds."""
        return Interval(
            torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper)
        )

    def reshape(self, *shape: int) -> Interval:
        return Interval(self.lower.reshape(shape), self.upper.reshape(shape))

    def to(self, dtype: torch.dtype) -> Interval:
        return Interval(self.lower.to(dtype), self.upper.to(dtype))
