"""Products of two computed values: planes around x y over a box (McCormick 1976).

x y - p x - q y is linear in x and in y, so that it has its extremes at corners: whatever the
slopes p and q, offsets from the four corners are valid. The slopes are those of the mean of the two
planes of McCormick, the other value's centre, below and above alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.mixed import Bundle
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
    below, above = _offsets(lower, upper, slopes)
    return ProductRelaxation(slopes, below, above)


def bundle(lower: Tensor, upper: Tensor, count: int | None = None) -> Bundle:
    """Of McCormick's two planes on each side, over the box of [B, 2, *shape]; `count`: of the
    neurons that the node has, where these are some of them.
    """
    low, high = lower.flatten(2), upper.flatten(2)
    (x, y), (x_last, y_last) = low.unbind(1), high.unbind(1)
    sides = []
    for side, corners in (
        (-1, ((y, x), (y_last, x_last))),
        (1, ((y_last, x), (y, x_last))),
    ):
        slopes = torch.stack([torch.stack(corner, 1) for corner in corners])
        slopes = torch.where(slopes.isfinite(), slopes, 0.0)
        offsets = [_offsets(low, high, of)[0 if side < 0 else 1] for of in slopes]
        sides.append((slopes, torch.stack(offsets)))
    return Bundle.of(
        sides[0], sides[1], torch.maximum(low.abs(), high.abs()), count or low.shape[2]
    )


def _offsets(lower: Tensor, upper: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Of planes below and above with slopes [B, 2, *shape], whatever they are."""
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
    return (
        torch.where(below.isnan(), -torch.inf, below),
        torch.where(above.isnan(), torch.inf, above),
    )


def _ends(lower: Tensor, upper: Tensor, index: int) -> tuple[Tensor, Tensor]:
    return lower[:, index], upper[:, index]
