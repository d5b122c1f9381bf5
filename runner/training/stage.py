"""What a method is told of the moment, and the batch that it is to give a loss of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """`images` [B, *shape] with pixels in [0, 1], `labels` [B]."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Stage:
    """Where training is. `ramp`: from 0 at the start to 1, as methods that bound grow their radius.

    `radius`: what is trained for. `steps`: of an attack inside training. `generator`: of all that
    is random in this epoch. `mixing`: weight of the robust loss, which a method sets for an epoch.
    """

    epoch: int
    radius: float
    ramp: float
    steps: int
    generator: torch.Generator
    mixing: float = 1.0

    @property
    def grown(self) -> float:
        """The radius so far."""
        return self.ramp * self.radius
