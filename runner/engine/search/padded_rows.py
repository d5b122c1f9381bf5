"""The rows of every disjunct of a case, padded to the same number: what sub-domains carry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.specs import Specs


@dataclass(frozen=True)
class PaddedRows:
    """Rows [K, disjuncts, outputs], limits and thresholds [K, disjuncts], in float64; see Specs.

    A disjunct of fewer rows repeats its first; one without rows has zeros, which prove nothing.
    """

    rows: Tensor
    limits: Tensor
    thresholds: Tensor

    @staticmethod
    def of(specs: Specs) -> PaddedRows:
        counts = torch.bincount(specs.disjunct, minlength=specs.disjuncts)
        most = max(1, int(counts.max())) if len(counts) else 1
        position = torch.arange(most, device=counts.device)[:, None]
        first = counts.cumsum(0) - counts
        index = first + torch.where(position < counts, position, 0)
        empty = counts == 0
        index = torch.where(empty, 0, index)
        rows = specs.rows[index].masked_fill(empty[:, None], 0.0)
        limits = specs.limits[index].masked_fill(empty, 0.0)
        thresholds = specs.thresholds[index].masked_fill(empty, 0.0)
        return PaddedRows(rows, limits, thresholds)

    @property
    def count(self) -> int:
        """K."""
        return self.rows.shape[0]

    def of_domains(self, disjunct: Tensor, dtype: torch.dtype) -> Tensor:
        """The rows [K, B, outputs] of domains of these disjuncts [B]."""
        return self.rows[:, disjunct].to(dtype)

    def goal(self, disjunct: Tensor, dtype: torch.dtype) -> Tensor:
        """What a bound must exceed [K, B]."""
        return self.thresholds[:, disjunct].to(dtype)

    def margins(self, bounds: Tensor, disjunct: Tensor) -> Tensor:
        """Of bounds [K, B]; what is not a number proves nothing."""
        margins = bounds.double() - self.thresholds[:, disjunct]
        return margins.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
