"""Functions of one variable, from what `Function` knows: bounds, and lines of any slope.

A line of slope p lies below f where its offset is at most the least value of f(x) - p x. Over a
piece that bends down or not at all that is at an end; over one that bends up it lies between two
points that close in on where f' is p, and no lower than the tangent of one of them comes until the
other. So no slope can be unsound, and the slopes are those of the convex hull half-way, found among
a few points. All is computed in float64, whatever the dtype is; what rounding costs there is
taken off (`Function.size`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.bounds.curves import lines
from runner.engine.bounds.relaxation import ElementwiseRelaxation
from runner.engine.bounds.rounding import smallest, unit
from runner.engine.functions.family import Bend, Function

_WIDE = torch.float64
_ROUNDINGS = 64  # of what a value, a derivative and their differences are computed with
_STEPS = 8  # of each half of an interval, whose points the hull is sought among
_HALVINGS = 24
_NARROW = 1e-6  # below that share of itself, a chord's slope is mostly rounding


def interval(f: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of f over [lower, upper], infinite where f is not known."""
    least, most = extremes(f, lower.to(_WIDE), upper.to(_WIDE))
    return rounded(least, lower.dtype, -1), rounded(most, lower.dtype, 1)


def relax(f: Function, lower: Tensor, upper: Tensor) -> ElementwiseRelaxation:
    """Lines around f over lower <= x <= upper, [B, *shape]."""
    low, high, dtype = lower.to(_WIDE), upper.to(_WIDE), lower.dtype
    limits = extremes(f, low, high)
    unknown = f.outside(low, high) | ~(low.isfinite() & high.isfinite())
    found = []
    for side, limit in zip((-1, 1), limits, strict=True):
        slope = _hull_slope(f, low, high, side).to(dtype).to(_WIDE)
        apart = offset(f, slope, low, high, side)
        useless = unknown | ~(apart.isfinite() & slope.isfinite())
        found.append(torch.where(useless, 0.0, slope).to(dtype))
        found.append(rounded(torch.where(useless, limit, apart), dtype, side))
    return lines(*found)


def extremes(f: Function, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _points(f, low, high, f.turns)
    off = error(f, x, y)
    least, most = _least(y - off), -_least(-(y + off))
    unknown = f.outside(low, high) | least.isnan() | most.isnan()
    least = torch.where(unknown, -torch.inf, least).clamp(min=f.least)
    return least, torch.where(unknown, torch.inf, most).clamp(max=f.most)


def _points(
    f: Function, low: Tensor, high: Tensor, inner: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Places [K, B, *shape] and values: of the ends, of `inner` as far as between, and corners."""
    ends = torch.stack([low, high])
    between = [torch.minimum(torch.maximum(torch.full_like(low, p), low), high) for p in inner]
    x = torch.cat([ends, torch.stack(between)]) if between else ends
    corners = f.corners(low, high)
    y = f.value(x)
    if not corners:
        return x, y
    places, values = (torch.stack(part) for part in zip(*corners, strict=True))
    none = values.isnan()  # that corner does not lie here
    places, values = torch.where(none, low, places), torch.where(none, y[0], values)
    return torch.cat([x, places]), torch.cat([y, values])


def error(f: Function, x: Tensor, y: Tensor) -> Tensor:
    size = f.size(x, y)
    return torch.where(size == 0, 0.0, size * (_ROUNDINGS * unit(_WIDE)) + smallest(_WIDE))


def _least(values: Tensor) -> Tensor:
    """Not a number where one is none."""
    return values.amin(0)


def _hull_slope(f: Function, low: Tensor, high: Tensor, side: int) -> Tensor:
    """Of the line that is best half-way, below (-1) or above (1) all points that are tried."""
    middle = torch.minimum(torch.maximum(low / 2 + high / 2, low), high)
    shares = torch.linspace(0, 1, _STEPS + 1, dtype=_WIDE, device=low.device)[:-1]
    shares = shares.reshape(-1, *(1,) * low.dim())
    left, right = low + shares * (middle - low), high + shares * (middle - high)
    x, y = _points(f, low, high, f.places)
    extra = x[2:], y[2:]  # without the ends, on whichever side
    starts, stops = (
        (torch.cat([grid, extra[0]]), -side * torch.cat([f.value(grid), extra[1]]))
        for grid in (left, right)
    )
    plain = f.derivative(middle)
    slope = torch.where(plain.isfinite(), plain, 0.0)
    best = -side * f.value(middle)
    for place, value in zip(extra[0], -side * extra[1], strict=True):
        best = torch.where((place == middle) & (value < best), value, best)
    after = (stops[0] > middle) & stops[1].isfinite()
    for place, value in zip(*starts, strict=True):
        steep = (stops[1] - value) / (stops[0] - place)
        at = torch.where(after & (place < middle), value + steep * (middle - place), torch.inf)
        least, index = at.nan_to_num(nan=torch.inf).min(0)
        better = least <= best + best.abs() * 1e-12  # a chord through a corner is better
        best = torch.where(better, least, best)
        slope = torch.where(better, -side * steep.gather(0, index[None])[0], slope)
    narrow = high - low <= _NARROW * (1 + middle.abs())
    return torch.where(narrow & plain.isfinite(), plain, slope)


def offset(f: Function, slope: Tensor, low: Tensor, high: Tensor, side: int) -> Tensor:
    """The least of f(x) - slope x (side -1), or the greatest (1), and what rounding may be."""
    x, y = _points(f, low, high, f.places)
    found = _least(-side * (y - slope * x) - gap_error(f, slope, x, y))
    wanted = Bend.UP if side < 0 else Bend.DOWN
    for index, bend in enumerate(f.bends):
        if bend is wanted:
            start = f.places[index - 1] if index else -torch.inf
            stop = f.places[index] if index < len(f.places) else torch.inf
            ends = (low.clamp(min=start), high.clamp(max=stop))
            ends = torch.minimum(ends[0], high), torch.maximum(ends[1], low)
            found = torch.minimum(found, _touching(f, slope, *ends, side))
    return -side * found


def _touching(f: Function, slope: Tensor, start: Tensor, stop: Tensor, side: int) -> Tensor:
    """The least of ±(f(x) - slope x) over a piece where that bends up."""
    first, last = start, torch.maximum(start, stop)
    width = last - first
    for _ in range(_HALVINGS):
        middle = first / 2 + last / 2
        falls = -side * (f.derivative(middle) - slope) < 0
        first, last = torch.where(falls, middle, first), torch.where(falls, last, middle)
    bounds = []
    off = torch.zeros_like(slope)
    for x, way in ((first, -1), (last, 1)):
        y, steep = f.value(x), f.derivative(x)
        gap = -side * (y - slope * x) - gap_error(f, slope, x, y)
        descent = (way * -side * (steep - slope)).clamp(min=0)
        bounds.append(gap - descent * (last - first) * (1 + 1e-9))
        wrong = (steep.abs() + slope.abs()) * (_ROUNDINGS * unit(_WIDE)) + error(f, x, y)
        off = torch.maximum(off, wrong.nan_to_num(0.0, 0.0, 0.0))
    # Where the signs of derivatives were wrong, f still falls by no more than they are off.
    return torch.fmax(*bounds) - off * width


def gap_error(f: Function, slope: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return error(f, x, y) + (y.abs() + (slope * x).abs()) * (4 * unit(_WIDE)) + smallest(_WIDE)


def rounded(limit: Tensor, dtype: torch.dtype, side: int) -> Tensor:
    """In another precision, downwards (-1) or upwards (1); what is no number says nothing."""
    limit = limit.nan_to_num(nan=side * torch.inf, posinf=torch.inf, neginf=-torch.inf)
    near = limit.to(dtype)
    wrong = near.to(_WIDE) > limit if side < 0 else near.to(_WIDE) < limit
    return torch.where(wrong, torch.nextafter(near, torch.full_like(near, side * torch.inf)), near)
