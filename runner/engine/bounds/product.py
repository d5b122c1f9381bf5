"""Products of two computed values: planes around x y over a box (McCormick 1976).

x y - p x - q y is linear in x and in y, so that it has its extremes at corners: whatever the
slopes p and q, offsets from the four corners are valid. The slopes are those of the mean of the two
planes of McCormick, the other value's centre, below and above alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.rounding import (
    COEFFICIENT_ROUNDINGS,
    enclosed_between,
    gamma,
    smallest,
    summands,
    summed,
)


def interval(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Of the first times the second of [B, 2, *shape]."""
    corners = torch.stack([x * y for x in _ends(lower, upper, 0) for y in _ends(lower, upper, 1)])
    size = corners.abs().amax(0)
    # Infinity times zero is no number, and says nothing.
    return enclosed_between(corners.amin(0), corners.amax(0), size, 1)


@dataclass(frozen=True)
class ProductRelaxation:
    """slopes [B, 2, *shape] of the first and the second value; offsets below and above."""

    slopes: Tensor
    below: Tensor
    above: Tensor

    def backward(self, A: Tensor) -> tuple[Tensor, Tensor]:
        bias = A.clamp(min=0) * self.below + A.clamp(max=0) * self.above
        return A.unsqueeze(2) * self.slopes, summed(bias.flatten(2))


def relax(lower: Tensor, upper: Tensor) -> ProductRelaxation:
    """Over the box of [B, 2, *shape]."""
    centre = (lower + upper) / 2
    slopes = centre.flip(1)
    slopes = torch.where(slopes.isfinite(), slopes, 0.0)
    p, q = slopes[:, 0], slopes[:, 1]
    gaps, sizes = [], []
    for x in _ends(lower, upper, 0):
        for y in _ends(lower, upper, 1):
            parts = x * y, p * x, q * y
            gaps.append(parts[0] - parts[1] - parts[2])
            sizes.append(torch.stack(parts).abs().sum(0))
    # Room for the sum over all neurons that they become part of.
    terms = 4 + summands(gaps[0][0].numel(), lower.dtype) + COEFFICIENT_ROUNDINGS
    off = torch.stack(sizes).amax(0) * gamma(terms, lower.dtype) + 8 * smallest(lower.dtype)
    found = torch.stack(gaps)
    below, above = found.amin(0) - off, found.amax(0) + off
    return ProductRelaxation(
        slopes,
        torch.where(below.isnan(), -torch.inf, below),
        torch.where(above.isnan(), torch.inf, above),
    )


def _ends(lower: Tensor, upper: Tensor, index: int) -> tuple[Tensor, Tensor]:
    return lower[:, index], upper[:, index]
