"""Disjuncts of several rows: a mix of its rows can exclude one that no row excludes alone.

A conjunction cannot hold in a box where some mix of its rows, with weights >= 0, stays above the
same mix of its thresholds. Over linear lower bounds the best mix is a small concave maximum; any
mix is sound, so a few steps of ascent are enough. What a mix rounds is taken off its margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.box_alpha import Mixes
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.rounding import COEFFICIENT_ROUNDINGS, gamma
from runner.engine.search.margins import Margins, Planes
from runner.engine.specs import Specs

STEPS = 12
FIRST_STEP = 2.0
# Rows whose sum is no less than so much of theirs have nothing in common.
MOSTLY = 0.9


class Disjuncts:
    """Which rows [S] belong to which disjunct, padded to the longest. Without `mixes` each is
    excluded by one of its rows or not at all.
    """

    def __init__(self, specs: Specs, *, mixes: bool = True) -> None:
        self._specs = specs
        self._mixes = mixes
        counts = torch.bincount(specs.disjunct, minlength=specs.disjuncts).tolist()
        most = max(1, *counts) if counts else 1
        self._rows = specs.disjunct.new_zeros((len(counts), most))
        self._real = torch.zeros_like(self._rows, dtype=torch.bool)
        for disjunct, count in enumerate(counts):
            self._rows[disjunct, :count] = (specs.disjunct == disjunct).nonzero()[:, 0]
            self._real[disjunct, :count] = True

    @property
    def several(self) -> bool:
        """Whether rows are mixed of any."""
        return self._mixes and self.longest > 1

    @property
    def longest(self) -> int:
        """Rows of any, at least one."""
        return self._rows.shape[1]

    @property
    def cancel(self) -> bool:
        """Whether rows of a disjunct have something in common that is less in their mean."""
        rows = self._specs.rows[self._rows] * self._real.unsqueeze(2)
        whole = rows.abs().sum((1, 2))
        return self._mixes and bool((rows.sum(1).abs().sum(1) < MOSTLY * whole).any())

    def best(self, values: Tensor) -> Tensor:
        """Of rows [N, S]: the greatest of each disjunct [N, disjuncts], -inf without rows."""
        return torch.where(self._real, values[:, self._rows], -torch.inf).amax(2)

    def mixes(self, box: Tensor, disjunct: Tensor, weights: Tensor) -> Mixes:
        """Of disjuncts [M] over boxes [M], with the weights that `mixed` found."""
        specs, rows = self._specs, self._rows[disjunct]
        mine = weights[box, disjunct].gather(1, rows).masked_fill(~self._real[disjunct], 0.0)
        real = self._real[disjunct] if self._mixes else mine > 0
        return Mixes(box, specs.rows[rows], specs.thresholds[rows], mine, real)

    def planes(self, box: Interval, lower: Tensor, coefficients: Tensor, found: Margins) -> Planes:
        """Over boxes [N, inputs] in float64, below rows as `mixed` takes them, and below the mix
        that was found of each disjunct.
        """
        missing = torch.where(self._real, -lower[:, self._rows], torch.inf)
        # The slopes of a mix are rounded sums: that is worth so much at the far end of the box.
        terms = lower.shape[1] + coefficients.shape[2] + COEFFICIENT_ROUNDINGS
        reach = (found.steep * (box.upper - box.lower)[:, None]).sum(2)
        of_mix = (4 * gamma(terms, lower.dtype) * reach - found.margins).unsqueeze(2)
        slopes = torch.cat([coefficients[:, self._rows], found.slopes.unsqueeze(2)], 2)
        missing = torch.cat([missing, of_mix], 2).clamp(min=0)
        missing = torch.where(missing.isnan(), torch.inf, missing)
        return Planes(box.lower, box.upper, missing, slopes)

    def mixed(self, lower: Tensor, coefficients: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows with lower margins [N, S] and coefficients [N, S, inputs] over boxes of this
        radius [N, inputs]: the greatest margin found of each disjunct [N, disjuncts], never below
        the best row's, and the weights [N, disjuncts, S] of its mix, which sum to 1.
        """
        lower, radius = lower.double()[:, self._rows], radius.double()[:, None]
        slopes = coefficients.double()[:, self._rows]
        usable = self._real & lower.isfinite()
        first = torch.where(usable, lower, -torch.inf).argmax(2, keepdim=True)
        weights = torch.zeros_like(lower).scatter_(2, first, 1.0)
        best = torch.where(usable, lower, -torch.inf).amax(2)
        if self.several:
            mixture = _Mixture.of(lower, slopes, radius, usable)
            weights, best = _ascended(weights, best, mixture)
        spread = weights.new_zeros(*weights.shape[:2], coefficients.shape[1])
        return best, spread.scatter_add(2, self._rows.expand_as(weights), weights)


@dataclass(frozen=True)
class _Mixture:
    """Linear lower bounds of K rows of each disjunct: `usable` [N, disjuncts, K], at the `centre`
    of a box [N, disjuncts, K], `slopes` [N, disjuncts, K, inputs], over `radius` [N, 1, inputs];
    `rounding`: what a mix may be off by for a weight of 1, [N, disjuncts, K].
    """

    usable: Tensor
    centre: Tensor
    slopes: Tensor
    radius: Tensor
    rounding: Tensor

    @staticmethod
    def of(lower: Tensor, slopes: Tensor, radius: Tensor, usable: Tensor) -> _Mixture:
        reach = (slopes.abs() * radius[:, None]).sum(3)
        centre = torch.where(usable, lower + reach, 0.0)
        terms = slopes.shape[2] + slopes.shape[3] + COEFFICIENT_ROUNDINGS
        sums = torch.where(usable, lower.abs() + 2 * reach, 0.0)
        return _Mixture(usable, centre, slopes, radius, 2 * sums * gamma(terms, sums.dtype))

    def margin(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Of a mix [N, disjuncts, K]: its least value over the box [N, disjuncts], in real
        arithmetic, and its slopes [N, disjuncts, inputs].
        """
        slope = torch.einsum("ndk,ndki->ndi", weights, self.slopes)
        least = (weights * (self.centre - self.rounding)).sum(2)
        return least - (slope.abs() * self.radius).sum(2), slope


def _ascended(weights: Tensor, best: Tensor, mixture: _Mixture) -> tuple[Tensor, Tensor]:
    """Exponentiated gradient from equal weights, keeping what is best."""
    logits = torch.zeros_like(mixture.centre).masked_fill(~mixture.usable, -torch.inf)
    for step in range(STEPS):
        trial = logits.softmax(2).nan_to_num(0.0)
        margin, slope = mixture.margin(trial)
        better = mixture.usable.any(2) & (margin > best)
        best = torch.where(better, margin, best)
        weights = torch.where(better[..., None], trial, weights)
        worst = slope.sign() * mixture.radius
        gradient = mixture.centre - torch.einsum("ndki,ndi->ndk", mixture.slopes, worst)
        size = gradient.abs().amax(2, keepdim=True).clamp(min=1e-30)
        logits = logits + FIRST_STEP / (1 + step) ** 0.5 * gradient / size
    return weights, best
