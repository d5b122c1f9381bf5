"""The rows of every disjunct of a case, padded to the same number: what sub-domains carry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.verify.incomplete import ROUNDING_UNITS
from runner.verify.specs import Specs


@dataclass(frozen=True)
class PaddedRows:
    """Rows [K, disjuncts, outputs], thresholds and magnitudes [K, disjuncts], in float64.

    A disjunct of fewer rows repeats its first; one without rows has zeros, which prove nothing.
    `magnitude`: of the largest terms that a bound of the row is a sum of.
    """

    rows: Tensor
    thresholds: Tensor
    magnitude: Tensor

    @staticmethod
    def of(specs: Specs, largest: float) -> PaddedRows:
        """`largest`: of the values that any node may have."""
        counts = torch.bincount(specs.disjunct, minlength=specs.disjuncts)
        most = max(1, int(counts.max())) if len(counts) else 1
        position = torch.arange(most, device=counts.device)[:, None]
        first = counts.cumsum(0) - counts
        index = first + torch.where(position < counts, position, 0)
        empty = counts == 0
        index = torch.where(empty, 0, index)
        rows = specs.rows[index].masked_fill(empty[:, None], 0.0)
        thresholds = specs.thresholds[index].masked_fill(empty, 0.0)
        return PaddedRows(rows, thresholds, rows.abs().sum(2) * largest + thresholds.abs())

    @property
    def count(self) -> int:
        """K."""
        return self.rows.shape[0]

    def slack(self, dtype: torch.dtype) -> Tensor:
        """The rounding that bounds computed in a dtype may hide, [K, disjuncts]."""
        return self.magnitude * (torch.finfo(dtype).eps * ROUNDING_UNITS)

    def of_domains(self, disjunct: Tensor, dtype: torch.dtype) -> Tensor:
        """The rows [K, B, outputs] of domains of these disjuncts [B]."""
        return self.rows[:, disjunct].to(dtype)

    def goal(self, disjunct: Tensor) -> Tensor:
        """What a float32 bound must exceed [K, B]."""
        return (self.thresholds + self.slack(torch.float32))[:, disjunct].float()

    def margins(self, bounds: Tensor, disjunct: Tensor) -> Tensor:
        """Of bounds [K, B]; what is not a number proves nothing."""
        margins = bounds.double() - self.thresholds[:, disjunct]
        return margins.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
