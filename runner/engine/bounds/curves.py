"""Functions of one variable: bounds and lines around them, valid because of where extremes are.

A line of any slope p lies below f where its offset is at most the least value of f(x) - p x, and
above it where it is at least the greatest. On an interval where f is convex the greatest is taken
at an end, and the least, for p = f'(m), at m; concave likewise. Sine and cosine turn; there the
extremes are also where the derivative is p, which is known in closed form. Offsets are moved out by
what rounding and the library's functions may be off by (`FUNCTION_ROUNDINGS`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from runner.engine.bounds.relaxation import FUNCTION_ROUNDINGS, ElementwiseRelaxation
from runner.engine.bounds.rounding import (
    COEFFICIENT_ROUNDINGS,
    gamma,
    outwards,
    smallest,
    summands,
    unit,
)
from runner.engine.network.graph import Op

Function = Callable[[Tensor], Tensor]
# Roundings of an extreme: the function, a product and a sum of each, and of a derivative.
_EXTREME = 4 * FUNCTION_ROUNDINGS
# Within so much of a period a line of one slope is of use around sine and cosine.
_WIDE = pi


@dataclass(frozen=True)
class Curve:
    """f, f' and where f bends upwards (convex) and where it is not known (outside its domain)."""

    value: Function
    derivative: Function
    convex: Function
    outside: Callable[[Tensor, Tensor], Tensor]


def _nowhere(lower: Tensor, upper: Tensor) -> Tensor:
    return torch.zeros_like(lower, dtype=torch.bool)


CURVES = {
    Op.SQUARE: Curve(torch.square, lambda x: 2 * x, lambda m: m == m, _nowhere),
    Op.EXP: Curve(torch.exp, torch.exp, lambda m: m == m, _nowhere),
    Op.SQRT: Curve(
        torch.sqrt, lambda x: 0.5 / x.sqrt(), lambda m: m != m, lambda lower, _: ~(lower >= 0)
    ),
    Op.RECIPROCAL: Curve(
        torch.reciprocal,
        lambda x: -1 / x.square(),
        lambda m: m > 0,
        lambda lower, upper: ~((lower > 0) | (upper < 0)),
    ),
}


def interval(op: Op, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of f over [lower, upper], infinite where f is not known."""
    if op in _TURNS:
        return _turning_interval(op, lower, upper)
    curve = CURVES[op]
    ends = curve.value(lower), curve.value(upper)
    least, most = torch.minimum(*ends), torch.maximum(*ends)
    if op is Op.SQUARE:
        least = torch.where((lower < 0) & (upper > 0), 0.0, least)
    least, most = outwards(least, most, FUNCTION_ROUNDINGS)
    if op is not Op.RECIPROCAL:
        least = least.clamp(min=0)  # none of the others is ever negative
    unknown = curve.outside(lower, upper)
    return torch.where(unknown, -torch.inf, least), torch.where(unknown, torch.inf, most)


def relax(op: Op, lower: Tensor, upper: Tensor) -> ElementwiseRelaxation:
    """Lines around f over lower <= x <= upper, [B, *shape]."""
    if op in _TURNS:
        return _turning(op, lower, upper)
    curve = CURVES[op]
    below, above, least, most = _bent(curve, lower, upper)
    unknown = curve.outside(lower, upper) | ~(lower.isfinite() & upper.isfinite())
    least, most = (
        torch.where(unknown, limit, offset)
        for limit, offset in ((-torch.inf, least), (torch.inf, most))
    )
    return lines(torch.where(unknown, 0.0, below), least, torch.where(unknown, 0.0, above), most)


def _bent(curve: Curve, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slopes below and above, and offsets, where f bends one way: a tangent and the chord."""
    middle = (lower + upper) / 2
    middle = torch.minimum(torch.maximum(middle, lower), upper)
    width = upper - lower
    ends = curve.value(lower), curve.value(upper)
    chord = torch.where(width > 0, (ends[1] - ends[0]) / width, 0.0)
    # Rounding may make more of a narrow one than f is steep.
    steep = curve.derivative(lower), curve.derivative(upper)
    chord = torch.minimum(torch.maximum(chord, torch.minimum(*steep)), torch.maximum(*steep))
    chord = torch.where(chord.isfinite(), chord, 0.0)
    tangent = curve.derivative(middle)
    convex, touches = curve.convex(middle), tangent.isfinite()
    tangent = torch.where(touches, tangent, 0.0)
    below, above = torch.where(convex, tangent, chord), torch.where(convex, chord, tangent)

    def gap(slope: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) - slope x, and what rounding it may be off by."""
        value, product = curve.value(x), slope * x
        size = value.abs() + product.abs()
        return value - product, size * (_EXTREME * unit(x.dtype)) + 4 * smallest(x.dtype)

    found = {}
    for sign, slope, bent in ((-1, below, convex), (1, above, ~convex)):
        # Of the tangent: the derivative is computed, and so its slope is not quite that of f there.
        touch, off = gap(slope, middle)
        error = slope.abs() * (_EXTREME * unit(slope.dtype)) + 4 * smallest(slope.dtype)
        off = off + error * width
        sides = [gap(slope, x) for x in (lower, upper)]
        choose = torch.minimum if sign < 0 else torch.maximum
        of_ends = choose(*(value + sign * error for value, error in sides))
        # Where the derivative overflows the slope is 0, and f is one that only grows or falls.
        found[sign] = torch.where(bent & touches, touch + sign * off, of_ends)
    return below, above, found[-1], found[1]


def lines(below: Tensor, least: Tensor, above: Tensor, most: Tensor) -> ElementwiseRelaxation:
    """With room for the sum over all neurons that offsets become part of."""
    terms = summands(least[0].numel(), least.dtype) + COEFFICIENT_ROUNDINGS
    room = gamma(terms, least.dtype)
    least, most = least - least.abs() * room, most + most.abs() * room
    return ElementwiseRelaxation(
        below,
        torch.where(least.isnan(), -torch.inf, least),
        above,
        torch.where(most.isnan(), torch.inf, most),
    )


@dataclass(frozen=True)
class _Turns:
    """A function of period 2 pi between -1 and 1. `top`: where it is 1; `slanted`: where it has a
    slope between -1 and 1, both places of a period.
    """

    value: Function
    top: float
    slanted: Callable[[Tensor], tuple[Tensor, Tensor]]


_TURNS = {
    Op.SIN: _Turns(torch.sin, pi / 2, lambda p: (torch.acos(p), -torch.acos(p))),
    Op.COS: _Turns(torch.cos, 0.0, lambda p: (-torch.asin(p), pi + torch.asin(p))),
}


def _turning_interval(op: Op, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    turns = _TURNS[op]
    ends = turns.value(lower), turns.value(upper)
    least, most = outwards(torch.minimum(*ends), torch.maximum(*ends), FUNCTION_ROUNDINGS)
    most = torch.where(_passes(turns.top, lower, upper), 1.0, most)
    least = torch.where(_passes(turns.top + pi, lower, upper), -1.0, least)
    return least.clamp(-1, 1), most.clamp(-1, 1)


def _passes(place: float, lower: Tensor, upper: Tensor) -> Tensor:
    """Whether place + 2 k pi lies between, or so near that rounding hides it."""
    slack = (lower.abs() + upper.abs() + 8) * (8 * unit(lower.dtype))
    first, last = (lower - slack - place) / (2 * pi), (upper + slack - place) / (2 * pi)
    slack = slack / pi
    return ~(torch.floor(last + slack) < torch.ceil(first - slack))


def _turning(op: Op, lower: Tensor, upper: Tensor) -> ElementwiseRelaxation:
    """One slope on both sides, the chord's; over wide intervals none, between the extremes."""
    turns = _TURNS[op]
    least_value, most_value = _turning_interval(op, lower, upper)
    width = upper - lower
    ends = turns.value(lower), turns.value(upper)
    chord = ((ends[1] - ends[0]) / width).clamp(-1, 1)
    usable = (width > 0) & (width < _WIDE) & chord.isfinite()
    slope = torch.where(usable, chord, 0.0)
    period = torch.floor((lower + upper) / (4 * pi))
    places = [lower, upper]
    for place in turns.slanted(slope):
        places += [place + (period + turn) * (2 * pi) for turn in (-1, 0, 1)]
    points = torch.stack([torch.minimum(torch.maximum(x, lower), upper) for x in places])
    gaps = turns.value(points) - slope * points
    size, ulp = torch.maximum(lower.abs(), upper.abs()), unit(lower.dtype)
    # A place that is off by d is off by d² / 2 in the value, as the first derivative is 0 there;
    # acos and asin are off by no more than (64 u)^(1/2), and a place by a few u of itself.
    off = 64 * ulp + (8 * ulp * (size + 8)) ** 2 + 8 * ulp * slope.abs() * size
    least, most = gaps.amin(0) - off, gaps.amax(0) + off
    return lines(
        slope,
        torch.where(usable, least, least_value),
        slope,
        torch.where(usable, most, most_value),
    )
