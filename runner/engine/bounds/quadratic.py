"""Lower bounds of quadratic forms of variables t in [-1, 1], and of the best mix of several.

*Theorem.* Let q(t) = c + b·t + t·S t for a symmetric S, and G any matrix, v any vector. Then

    q(t) >= c - v·v - sum_k |b + 2 G v|_k + sum_k min(0, e_kk - sum_{l != k} |e_kl|)

for all t in [-1, 1], where E = S - G Gᵀ with entries e: t·G Gᵀ t = |Gᵀ t|² >= 2 v·Gᵀ t - v·v as
|Gᵀ t - v|² >= 0, and 2 t_k t_l e_kl >= -(t_k² + t_l²) |e_kl|, where t_k² is at most 1. Whatever G
and v are, as floats, it holds; it is best where G Gᵀ is what of S bends upwards, and v = Gᵀ t at
the least point t of the rest. Both are found by searching, and only for the variables of the input.

All sums that are computed for it, of at most n products each, are off by γ(n) of what the absolute
values of the summands add up to: |S| and |G| |G|ᵀ for E, |b| and 2 |G| |v| for the slopes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.curved import Curved, CurvedBounds
from runner.engine.bounds.rounding import gamma, smallest

# Of the search for weights: steps, and the first one and what is left of it each time, in logits.
STEPS, FIRST_STEP, DECAY = 9, 2.0, 0.7
# Of the search for the least point: over all variables of the input, one after the other.
SWEEPS = 3
# Factors of γ: for the sums of sizes that it is multiplied with.
_SAFETY = 4


@dataclass(frozen=True)
class Quadratics:
    """M times K rows: row >= constant + linear · t + t · square t for all t in [-1, 1].

    constant: [M, K]; linear: [M, K, V]; square: [M, K, Q, Q], symmetric, of the first Q variables,
    which begin with the `inputs` of the input. They are floats as they are.
    """

    constant: Tensor
    linear: Tensor
    square: Tensor
    inputs: int

    @property
    def size(self) -> Tensor:
        """[M, K]: what all absolute values add up to."""
        parts = self.constant.abs(), self.linear.abs().sum(2), self.square.abs().sum((2, 3))
        return parts[0] + parts[1] + parts[2]

    def select(self, index: Tensor) -> Quadratics:
        parts = (self.constant[index], self.linear[index], self.square[index])
        return Quadratics(*parts, self.inputs)

    def known(self, real: Tensor) -> tuple[Quadratics, Tensor]:
        """With zeros where nothing is known of a row, and which ones are not such [M, K]."""
        real = real & self.size.isfinite()
        constant, linear, square = (
            part.masked_fill(~real.reshape(*real.shape, *(1,) * (part.dim() - 2)), 0.0)
            for part in (self.constant, self.linear, self.square)
        )
        return Quadratics(constant, linear, square, self.inputs), real

    def mixed(self, weights: Tensor) -> Quadratics:
        """With weights [M, K] >= 0: [M, 1], lowered by what the sums may have rounded."""
        constant = (weights * self.constant).sum(1, keepdim=True)
        linear = torch.einsum("mk,mkv->mv", weights, self.linear).unsqueeze(1)
        square = torch.einsum("mk,mkab->mab", weights, self.square).unsqueeze(1)
        size = (weights * self.size).sum(1, keepdim=True)
        off = _off(size, self.linear.shape[1] + 2)
        return Quadratics(constant - off, linear, square, self.inputs)

    def at(self, t: Tensor, others: Tensor) -> Tensor:
        """About the values [M, K] at t [M, inputs] of the input, and `others` [M, V - inputs]."""
        square = self.square[:, :, : self.inputs, : self.inputs]
        point = torch.cat((t, others), 1)
        bent = torch.einsum("ma,mkab,mb->mk", t, square, t)
        return self.constant + torch.einsum("mkv,mv->mk", self.linear, point) + bent


def _off(size: Tensor, terms: int) -> Tensor:
    share = _SAFETY * gamma(terms + 16, size.dtype)
    return size * share + smallest(size.dtype) * (terms + 16) ** 2


def linear_margins(bounds: CurvedBounds, rows: Tensor, thresholds: Tensor) -> Tensor:
    """How far rows [S, outputs] lie above thresholds [S] at least, [B, S], with every variable on
    its own.
    """
    form, weight = bounds.output, rows.abs().T
    error = _flat(form.error).nan_to_num(torch.inf)
    known = error.isfinite()
    unknown = (~known).to(weight) @ weight > 0
    sums = _flat(form.size) @ weight + torch.where(known, error, 0.0) @ weight + thresholds.abs()
    reach = (form.columns.flatten(2) @ rows.T).abs().sum(0) + torch.where(
        known, error, 0.0
    ) @ weight
    lower = _flat(form.centre) @ rows.T - thresholds - reach
    lower = lower - _off(2 * sums, rows.shape[1] + len(form.symbols))
    lower = lower.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    return torch.where(unknown, -torch.inf, lower)


def quadratics(bounds: CurvedBounds, rows: Tensor, thresholds: Tensor, box: Tensor) -> Quadratics:
    """Of rows [M, K, outputs] above thresholds [M, K], over boxes [M] of those that are bounded."""
    form, size = bounds.output, _flat(bounds.output.size)[box].unsqueeze(1)
    order = _Order.of(bounds)
    weight = rows.abs()
    error = torch.where(rows == 0, 0.0, weight * _flat(form.error)[box].unsqueeze(1)).sum(2)
    sums = (weight * size).sum(2) + thresholds.abs() + error
    columns = form.columns.new_zeros((order.count, *form.columns.flatten(2).shape[1:]))
    columns[order.places(form.symbols)] = form.columns.flatten(2)
    linear = torch.einsum("vmo,mko->mkv", columns[:, box], rows)
    square = linear.new_zeros((*linear.shape[:2], order.bent, order.bent))
    for product in bounds.products:
        _substitute(product, order, box, linear, square)
    square = (square + square.transpose(2, 3)) / 2
    # Each coefficient, of a variable or of two, is a sum over outputs or over products.
    off = _off(4 * sums, rows.shape[2] + order.count)
    constant = (rows * _flat(form.centre)[box].unsqueeze(1)).sum(2) - thresholds
    return Quadratics(constant - error - off, linear, square, bounds.inputs)


def _flat(values: Tensor) -> Tensor:
    return values.flatten(1)


def _substitute(
    product: Curved, order: _Order, box: Tensor, linear: Tensor, square: Tensor
) -> None:
    """A product's variables, where they are linear, by what they are."""
    count = product.reach.shape[1]
    mine = order.places(range(product.first, product.first + count))
    weights = linear[:, :, mine] / product.reach[box].unsqueeze(1)
    linear[:, :, mine] = 0.0
    left = product.left[:, box].permute(1, 0, 2).unsqueeze(1) * weights.unsqueeze(2)
    found = left @ product.right[:, box].permute(1, 2, 0).unsqueeze(1)
    at = order.places(product.symbols)
    square[:, :, at[:, None], at] += found


@dataclass(frozen=True)
class _Order:
    """Variables that products are made of first, those of the input before all.

    place: of each variable; bent: how many come first.
    """

    place: Tensor
    bent: int

    @staticmethod
    def of(bounds: CurvedBounds) -> _Order:
        known = {symbol for product in bounds.products for symbol in product.symbols}
        factors = sorted(known.union(range(bounds.inputs)))
        # A product that the outputs see through an error alone has a place of its own as well.
        made = {p.first + k for p in bounds.products for k in range(p.reach.shape[1])}
        others = sorted(made.union(bounds.output.symbols) - set(factors))
        place = torch.zeros(max(factors + others) + 1, dtype=torch.long)
        place[factors + others] = torch.arange(len(factors + others))
        return _Order(place, len(factors))

    @property
    def count(self) -> int:
        return len(self.place)

    def places(self, symbols: Iterable[int]) -> Tensor:
        return self.place[list(symbols)]


@dataclass(frozen=True)
class Least:
    """Of M mixes: a lower bound [M] of each and its weights [M, K]; `slopes`: how the mix grows in
    the variables of the input where it is least, and `loose`: what was taken off for what does not
    bend upwards in each [M, inputs].
    """

    lower: Tensor
    weights: Tensor
    slopes: Tensor
    loose: Tensor

    @staticmethod
    def of(rows: Quadratics, weights: Tensor) -> Least:
        some = rows.constant.new_zeros((len(weights), rows.inputs))
        return Least(some.new_full((len(weights),), -torch.inf), weights, some, some.clone())

    def keep(self, index: Tensor, found: _Bound, weights: Tensor) -> None:
        """What is better of some of them."""
        better = found.lower > self.lower[index]
        at = index[better]
        self.lower[at], self.weights[at] = found.lower[better], weights[better]
        self.slopes[at], self.loose[at] = found.slopes[better], found.loose[better]


@torch.no_grad()
def greatest_least(rows: Quadratics, real: Tensor) -> Least:
    """Of the mixes of `real` rows [M, K] the one with the greatest lower bound, as far as it is
    found; a mix that is above 0 is good enough.
    """
    rows, real = rows.known(real)
    scale = rows.size.clamp(min=1e-30)
    logits = torch.zeros_like(scale).masked_fill(~real, -torch.inf)
    found = Least.of(rows, _weights(logits, scale))
    index = torch.arange(len(scale), device=scale.device)
    t = scale.new_zeros((len(scale), rows.inputs))
    step = FIRST_STEP
    for _ in range(STEPS if rows.constant.shape[1] > 1 else 1):
        some, weights = rows.select(index), _weights(logits[index], scale[index])
        bound = _bounded(some.mixed(weights), t[index])
        found.keep(index, bound, weights)
        t[index] = bound.point
        values = (some.at(bound.point, bound.others) / scale[index]).nan_to_num(0.0)
        values = values.masked_fill(~real[index], 0.0)
        most = values.abs().amax(1, keepdim=True).clamp(min=1e-30)
        logits[index] += step * values / most
        step *= DECAY
        index = index[~(found.lower[index] > 0)]
        if not len(index):
            break
    return found


def _weights(logits: Tensor, scale: Tensor) -> Tensor:
    """At least 0, with the sum 1; of rows that are scaled."""
    weights = logits.softmax(1) / scale
    return weights / weights.sum(1, keepdim=True)


@dataclass(frozen=True)
class _Bound:
    """`point` [M, inputs] and `others` [M, V - inputs]: about where the mix is least."""

    lower: Tensor
    slopes: Tensor
    loose: Tensor
    point: Tensor
    others: Tensor


def _bounded(mix: Quadratics, start: Tensor) -> _Bound:
    """Of a single mix each, [M, 1]."""
    inputs, linear, square = mix.inputs, mix.linear[:, 0], mix.square[:, 0]
    factor = _upward(square[:, :inputs, :inputs])
    convex = factor @ factor.transpose(1, 2)
    rest = square.clone()
    rest[:, :inputs, :inputs] -= convex
    point = _descended(linear[:, :inputs], convex, start)
    v = torch.einsum("mkj,mk->mj", factor, point)
    slopes = linear.clone()
    slopes[:, :inputs] += 2 * torch.einsum("mkj,mj->mk", factor, v)
    own = rest.diagonal(dim1=1, dim2=2)
    others = rest.abs().sum(2) - own.abs()
    lower = mix.constant[:, 0] - (v * v).sum(1) - slopes.abs().sum(1)
    lower = lower + (own - others).clamp(max=0).sum(1)
    columns = factor.abs().sum(1)
    size = mix.size[:, 0] + (columns + v.abs()).square().sum(1)
    lower = lower - _off(2 * size, 2 * (linear.shape[1] + inputs))
    lower = lower.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    return _Bound(
        lower,
        slopes[:, :inputs],
        (others - own.clamp(max=0))[:, :inputs],
        point,
        -slopes[:, inputs:].sign(),
    )


def _upward(square: Tensor) -> Tensor:
    """G [M, n, n] with G Gᵀ about what of symmetric matrices bends upwards."""
    scale = square.abs().sum(2).clamp(min=1e-30).sqrt()
    alike = (square / scale.unsqueeze(2) / scale.unsqueeze(1)).nan_to_num(0.0, 0.0, 0.0)
    try:
        values, vectors = torch.linalg.eigh(alike)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return torch.zeros_like(square)  # as sound, and looser
    found: Tensor = scale.unsqueeze(2) * vectors * values.clamp(min=0).sqrt().unsqueeze(1)
    return found


def _descended(linear: Tensor, convex: Tensor, start: Tensor) -> Tensor:
    """From `start` [M, n], towards the least of b·t + t·C t for t in [-1, 1]."""
    point = start.clone()
    for _ in range(SWEEPS):
        for k in range(point.shape[1]):
            slope = linear[:, k] + 2 * (convex[:, k] * point).sum(1)
            bend = 2 * convex[:, k, k]
            step = torch.where(bend > 0, -slope / bend, -2 * slope.sign())
            point[:, k] = (point[:, k] + step).clamp(-1, 1)
    return point.nan_to_num(0.0)
