"""The bundles of lines around functions of one variable and products that an ascent chooses from.

The slopes are those of the convex hull of f, which a grid shows; the offset of each comes from the
exact extremes of f(x) - slope x, as all others do, so that neither the grid nor the choice of
slopes matters to soundness. All is computed in float64, and rounded outwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import pi

import torch
from torch import Tensor

from runner.engine.bounds import function, product
from runner.engine.bounds.mixed import Bundle
from runner.engine.bounds.rounding import unit
from runner.engine.functions import function_of, named
from runner.engine.functions.family import Bend, Function
from runner.engine.network.graph import Node, Op

_WIDE = torch.float64
_CELLS = 12  # of the grid whose chords are the hull
_LINES = 7
# The line in the middle of a bundle is that which is best half-way, but for this share of all.
_SIDE = 0.15
# Slopes that differ by less, as a share of the largest, are one.
_SAME = 1e-5

# The least (side -1) or greatest (1) of f(x) - slope x over low <= x <= high, all float64.
Offset = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class _Bent:
    """f, and offsets of lines around it."""

    f: Function
    offset: Offset


def bundle(node: Node, lower: Tensor, upper: Tensor, count: int | None = None) -> Bundle:
    """Of a node that has one, over lower <= x <= upper, [B, *in_shape]; `count`: of the neurons
    that the node has, where these are some of them.
    """
    if node.op is Op.PRODUCT:
        return product.bundle(lower, upper, count)
    bent = _bent(node)
    low, high, dtype = lower.flatten(1).to(_WIDE), upper.flatten(1).to(_WIDE), lower.dtype
    make = _tangents if node.op in _ONE_WAY else _lines
    sides = [make(bent, low, high, dtype, side) for side in (-1, 1)]
    size = torch.maximum(lower.abs(), upper.abs()).flatten(1).unsqueeze(1)
    return Bundle.of(sides[0], sides[1], size, count or low.shape[1])


def bundle_where(
    node: Node, whole: Bundle, lower: Tensor, upper: Tensor, changed: Tensor
) -> Bundle:
    """Over B domains, of which entries `changed` [B, n] differ from what `whole` is of."""
    if not bool(changed.any()):
        return whole
    inputs = 2 if node.op is Op.PRODUCT else 1
    ends = (end.reshape(len(changed), inputs, -1).movedim(1, 0) for end in (lower, upper))
    some = [end[:, changed] for end in ends]
    if inputs == 2:
        made = bundle(node, some[0].unsqueeze(0), some[1].unsqueeze(0), changed.shape[1])
    else:
        made = bundle(node, some[0], some[1], changed.shape[1])
    return whole.changed(changed, made)


def _bent(node: Node) -> _Bent:
    if node.op is Op.FUNCTION:
        f = function_of(node)
        return _Bent(f, partial(function.offset, f))
    if node.op in _WAVES:
        wave = _WAVES[node.op]
        return _Bent(wave.f, wave.offset)
    f = named(*_NAMES[node.op])
    return _Bent(f, partial(function.offset, f))


_NAMES: dict[Op, tuple[str, dict[str, float | str]]] = {
    Op.EXP: ("Exp", {}),
    Op.RECIPROCAL: ("Power", {"exponent": -1.0}),
    Op.SIGMOID: ("Sigmoid", {}),
    Op.SQRT: ("Power", {"exponent": 0.5}),
    Op.SQUARE: ("Power", {"exponent": 2.0}),
    Op.TANH: ("Tanh", {}),
}


# They bend one way on either side of 0, or are known on one side alone.
_ONE_WAY = frozenset({Op.EXP, Op.RECIPROCAL, Op.SQRT, Op.SQUARE})


def _tangents(
    bent: _Bent, low: Tensor, high: Tensor, dtype: torch.dtype, side: int
) -> tuple[Tensor, Tensor]:
    """As `_lines`: tangents on the side that f bends away from, and the chord on the other."""
    f = bent.f
    unknown = f.outside(low, high) | ~(low.isfinite() & high.isfinite())
    low, high = torch.where(unknown, 1.0, low), torch.where(unknown, 1.0, high)
    # Not at the ends, where a square root may be upright.
    shares = torch.linspace(1 / 64, 63 / 64, _LINES, dtype=_WIDE, device=low.device)
    x = torch.lerp(low, high, shares.reshape(-1, 1, 1))
    x = torch.minimum(torch.maximum(x, low), high)
    steep, width = f.derivative(x), high - low
    ends = torch.stack([low, high])
    values = f.value(ends)
    chord = (values[1] - values[0]) / width
    middle = steep[_LINES // 2].nan_to_num(0.0, 0.0, 0.0)
    chord = torch.where((width > 0) & chord.isfinite(), chord, middle).to(dtype).to(_WIDE)
    slopes = steep.nan_to_num(0.0, 0.0, 0.0).to(dtype).to(_WIDE)
    y = f.value(x)
    gap = -side * (y - slopes * x) - function.gap_error(f, slopes, x, y)
    wrong = (steep - slopes).abs() + (steep.abs() + slopes.abs()) * (64 * unit(_WIDE))
    touching = gap - (wrong + function.error(f, x, y)) * width
    of_ends = -side * (values - chord * ends) - function.gap_error(f, chord, ends, values)
    up = torch.where(low >= 0, f.bends[-1] is Bend.UP, f.bends[0] is Bend.UP)
    away = up == (side < 0)
    slopes = torch.where(away, slopes, chord)
    offsets = -side * torch.where(away, touching, of_ends.amin(0))
    return _usable(bent, slopes, offsets, unknown, (low, high), dtype, side)


def _lines(
    bent: _Bent, low: Tensor, high: Tensor, dtype: torch.dtype, side: int
) -> tuple[Tensor, Tensor]:
    """Slopes [K, B, 1, n] and offsets [K, B, n] of one side."""
    f = bent.f
    unknown = f.outside(low, high) | ~(low.isfinite() & high.isfinite())
    ends = torch.where(unknown, 0.0, low), torch.where(unknown, 0.0, high)
    slopes = _chosen(_hull(f, *ends, side)).to(dtype).to(_WIDE)
    wide = [end.expand_as(slopes) for end in ends]
    offsets = bent.offset(slopes, wide[0], wide[1], side)
    return _usable(bent, slopes, offsets, unknown, (low, high), dtype, side)


def _usable(
    bent: _Bent,
    slopes: Tensor,
    offsets: Tensor,
    unknown: Tensor,
    ends: tuple[Tensor, Tensor],
    dtype: torch.dtype,
    side: int,
) -> tuple[Tensor, Tensor]:
    """In the precision they are used in; where one is of no use, all are what bounds f."""
    useless = unknown | ~(offsets.isfinite() & slopes.isfinite()).all(0)
    limit = function.extremes(bent.f, *ends)[0 if side < 0 else 1]
    limit = torch.where(unknown, bent.f.least if side < 0 else bent.f.most, limit)
    slopes = torch.where(useless, 0.0, slopes).to(dtype)
    offsets = function.rounded(torch.where(useless, limit, offsets), dtype, side)
    return slopes.unsqueeze(2), offsets


def _hull(f: Function, low: Tensor, high: Tensor, side: int) -> Tensor:
    """Slopes [cells, B, n] of the hull below (-1) or above (1) f, cell by cell: the greatest, over
    all points to the left, of the least chord to a point to the right.
    """
    shares = torch.linspace(0, 1, _CELLS + 1, dtype=_WIDE, device=low.device)
    x = torch.lerp(low, high, shares.reshape(-1, 1, 1))
    y = -side * f.value(x)
    found = torch.full_like(x[1:], -torch.inf)
    for left in range(_CELLS):
        chords = (y[left + 1 :] - y[left]) / (x[left + 1 :] - x[left])
        chords = chords.nan_to_num(nan=torch.inf)
        least = chords.flip(0).cummin(0).values.flip(0)
        found[left:] = torch.maximum(found[left:], least)
    flat = f.derivative(x[_CELLS // 2]).nan_to_num(0.0, 0.0, 0.0)
    return torch.where(found.isfinite(), -side * found, flat)


def _chosen(slopes: Tensor) -> Tensor:
    """Of slopes that all turn one way [cells, B, n], a few [K, B, n] that are far from each other:
    a function that is straight in large part has its parameter where it bends.
    """
    largest = slopes.abs().amax(0)
    steps = ((slopes[1:] - slopes[:-1]).abs() > _SAME * largest).to(_WIDE)
    total = steps.sum(0).clamp(min=1)
    passed = torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)]) / total
    half = ((passed[_CELLS // 2] + passed[_CELLS // 2 - 1]) / 2).clamp(_SIDE, 1 - _SIDE)
    shares = torch.linspace(0, 1, _LINES, dtype=_WIDE, device=slopes.device).reshape(-1, 1, 1)
    wanted = torch.where(shares < 0.5, 2 * shares * half, half + (2 * shares - 1) * (1 - half))
    # Between the last cell that has not passed what is wanted, and the next.
    ranks = (passed.unsqueeze(0) <= wanted.unsqueeze(1)).sum(1).clamp(1, len(slopes) - 1)
    before, after = passed.gather(0, ranks - 1), passed.gather(0, ranks)
    way = ((wanted - before) / (after - before)).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
    return torch.lerp(slopes.gather(0, ranks - 1), slopes.gather(0, ranks), way)


@dataclass(frozen=True)
class _Wave:
    """Of period 2 pi. `slanted`: where it has a slope between -1 and 1, both places of a period."""

    f: Function
    slanted: Callable[[Tensor], tuple[Tensor, Tensor]]

    def offset(self, slope: Tensor, low: Tensor, high: Tensor, side: int) -> Tensor:
        """At an end, or at the first or the last place between where it has that slope: what is
        between those grows or falls from one period to the next.
        """
        places = [low, high]
        for place in self.slanted(slope.clamp(-1, 1)):
            first = place + (2 * pi) * torch.ceil((low - place) / (2 * pi))
            last = place + (2 * pi) * torch.floor((high - place) / (2 * pi))
            places += [torch.minimum(torch.maximum(x, low), high) for x in (first, last)]
        points = torch.stack(places)
        gaps = -side * (self.f.value(points) - slope * points)
        size, ulp = torch.maximum(low.abs(), high.abs()), unit(_WIDE)
        # A place that is off by d costs d² / 2, as the first derivative is 0 there; acos and asin
        # are off by no more than (64 u)^(1/2), and a place by a few u of itself.
        off = 64 * ulp + (8 * ulp * (size + 8)) ** 2 + 8 * ulp * slope.abs() * size
        return -side * (gaps.amin(0) - off)


_WAVES = {
    Op.SIN: _Wave(
        Function(torch.sin, torch.cos, (), least=-1.0, most=1.0),
        lambda p: (torch.acos(p), -torch.acos(p)),
    ),
    Op.COS: _Wave(
        Function(torch.cos, lambda x: -torch.sin(x), (), least=-1.0, most=1.0),
        lambda p: (-torch.asin(p), pi + torch.asin(p)),
    ),
}
