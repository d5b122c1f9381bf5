"""Sub-domains of one box: what a pass takes of a batch of them, and what it is seen to pass.

All ranks know the phases of all N neurons that may be split; multipliers [V] are a rank's own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval


@dataclass(frozen=True)
class Subdomains:
    """B of them with K rows each: rows [K, B, outputs], phases [B, N], multipliers [K, B, V].

    before: of the unstable neurons' inputs [B, N], cut at zero where a neuron is split. sets [B]:
    which planes are meant, where bounds have any.
    """

    rows: Tensor
    phases: Tensor
    before: Interval
    multipliers: Tensor
    sets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.phases)

    def select(self, index: Tensor) -> Subdomains:
        before = Interval(self.before.lower[index], self.before.upper[index])
        sets = None if self.sets is None else self.sets[index]
        rows, multipliers = self.rows[:, index], self.multipliers[:, index]
        return Subdomains(rows, self.phases[index], before, multipliers, sets)

    def to(self, dtype: torch.dtype) -> Subdomains:
        rows, multipliers = self.rows.to(dtype), self.multipliers.to(dtype)
        return Subdomains(rows, self.phases, self.before.to(dtype), multipliers, self.sets)


@dataclass(frozen=True)
class Inspection:
    """Bounds [K, B], and the coefficients on the way: of the outputs of this rank's unstable
    neurons [K, B, V] and of the input [K, B, *own input], with the constant [K, B] in float64.
    """

    bounds: Tensor
    neurons: Tensor
    inputs: Tensor
    constant: Tensor

    def select(self, index: Tensor) -> Self:
        """Of some sub-domains."""
        return replace(
            self, **{field.name: getattr(self, field.name)[:, index] for field in fields(self)}
        )
