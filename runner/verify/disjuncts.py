"""Disjuncts of several rows: a mix of its rows can exclude one that no row excludes alone.

A conjunction cannot hold in a box where some mix of its rows, with weights >= 0, stays above the
same mix of its thresholds. Over linear lower bounds the best mix is a small concave maximum; any
mix is sound, so a few steps of ascent are enough.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.verify.specs import Specs

STEPS = 12
FIRST_STEP = 2.0


class Disjuncts:
    """Which rows [S] belong to which disjunct, padded to the longest."""

    def __init__(self, specs: Specs) -> None:
        counts = torch.bincount(specs.disjunct, minlength=specs.disjuncts).tolist()
        most = max(1, *counts) if counts else 1
        self._rows = specs.disjunct.new_zeros((len(counts), most))
        self._real = torch.zeros_like(self._rows, dtype=torch.bool)
        for disjunct, count in enumerate(counts):
            self._rows[disjunct, :count] = (specs.disjunct == disjunct).nonzero()[:, 0]
            self._real[disjunct, :count] = True

    def best(self, values: Tensor) -> Tensor:
        """Of rows [N, S]: the greatest of each disjunct [N, disjuncts], -inf without rows."""
        return torch.where(self._real, values[:, self._rows], -torch.inf).amax(2)

    def mixed(self, lower: Tensor, coefficients: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows with lower margins [N, S] and coefficients [N, S, inputs] over boxes of this
        radius [N, inputs]: the greatest margin found of each disjunct [N, disjuncts], never below
        the best row's, and the weights [N, disjuncts, S] of its mix, which sum to 1.
        """
        lower, radius = lower.double()[:, self._rows], radius.double()[:, None]
        slopes = coefficients.double()[:, self._rows]
        usable = self._real & lower.isfinite()
        centre = torch.where(usable, lower + (slopes.abs() * radius[:, None]).sum(3), 0.0)
        first = torch.where(usable, lower, -torch.inf).argmax(2, keepdim=True)
        weights = torch.zeros_like(lower).scatter_(2, first, 1.0)
        best = torch.where(usable, lower, -torch.inf).amax(2)
        if self._rows.shape[1] > 1:
            weights, best = _ascended(weights, best, centre, slopes, radius, usable)
        spread = weights.new_zeros(*weights.shape[:2], coefficients.shape[1])
        return best, spread.scatter_add(2, self._rows.expand_as(weights), weights)


def _ascended(
    weights: Tensor, best: Tensor, centre: Tensor, slopes: Tensor, radius: Tensor, usable: Tensor
) -> tuple[Tensor, Tensor]:
    """Exponentiated gradient from equal weights, keeping what is best."""
    logits = torch.zeros_like(centre).masked_fill(~usable, -torch.inf)
    for step in range(STEPS):
        trial = logits.softmax(2).nan_to_num(0.0)
        slope = torch.einsum("ndk,ndki->ndi", trial, slopes)
        margin = (trial * centre).sum(2) - (slope.abs() * radius).sum(2)
        better = usable.any(2) & (margin > best)
        best = torch.where(better, margin, best)
        weights = torch.where(better[..., None], trial, weights)
        gradient = centre - torch.einsum("ndki,ndi->ndk", slopes, slope.sign() * radius)
        size = gradient.abs().amax(2, keepdim=True).clamp(min=1e-30)
        logits = logits + FIRST_STEP / (1 + step) ** 0.5 * gradient / size
    return weights, best
