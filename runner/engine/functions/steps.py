"""Functions with jumps or straight pieces, each in one entry of `FAMILIES`."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.functions.family import (
    Bend,
    Corners,
    Family,
    Function,
    Steps,
    Values,
    joined,
    jump,
    of_argument,
    of_whole,
    through,
    where_known,
)

_FLAT = (Bend.STRAIGHT, Bend.STRAIGHT)


# Found with the binarised network of traffic_signs_recognition, whose values are up to thousands.
_REACH = 4.0


def _near_zero(x: Tensor) -> Tensor:
    """What a step at 0 passes on of a gradient: a far value will hardly change sides."""
    return 1 / (1 + (x / _REACH).square())


def _step(left: float, at: float, right: float) -> Function:
    """At 0."""

    def value(x: Tensor) -> Tensor:
        found = torch.where(x > 0, right, torch.full_like(x, left))
        return torch.where(x == 0, at, found)

    return Function(
        through(value, _near_zero),
        torch.zeros_like,
        _FLAT,
        (0.0,),
        corners=jump(0.0, left, at, right),
        least=min(left, at, right),
        most=max(left, at, right),
        size=of_whole,
        steps=Steps((0.0,)),
    )


def _near() -> Function:
    """Whether |x| < 1/2: whether a whole number is 0."""
    return Function(
        through(lambda x: (x.abs() < 0.5).to(x.dtype), torch.zeros_like),
        torch.zeros_like,
        (Bend.STRAIGHT, *_FLAT),
        (-0.5, 0.5),
        corners=joined((jump(-0.5, 0.0, 0.0, 1.0), jump(0.5, 1.0, 0.0, 0.0))),
        least=0.0,
        most=1.0,
        size=of_whole,
        steps=Steps((-0.5, 0.5)),
    )


def _floors(lower: Tensor, upper: Tensor) -> list[tuple[Tensor, Tensor]]:
    """All jumps of floor lie between the first and the last, along two lines."""
    found = []
    for place in (lower.floor() + 1, upper.floor()):
        holds = (lower < place) & (place <= upper)
        found += [where_known(holds, place, y, lower) for y in (place - 1, place)]
    return found


def _ceils(lower: Tensor, upper: Tensor) -> list[tuple[Tensor, Tensor]]:
    found = []
    for place in (lower.ceil(), upper.ceil() - 1):
        holds = (lower <= place) & (place < upper)
        found += [where_known(holds, place, y, lower) for y in (place, place + 1)]
    return found


def _rounds(lower: Tensor, upper: Tensor) -> list[tuple[Tensor, Tensor]]:
    """At a half itself f is one of its two limits there."""
    found = []
    for place in ((lower + 0.5).floor() + 0.5, (upper + 0.5).floor() - 0.5):
        found.append(where_known((lower < place) & (place <= upper), place, place - 0.5, lower))
    for place in ((lower - 0.5).ceil() + 0.5, (upper - 0.5).ceil() - 0.5):
        found.append(where_known((lower <= place) & (place < upper), place, place + 0.5, lower))
    return found


def _staircase(value: Values, corners: Corners, shift: float = 0.0) -> Function:
    return Function(
        through(value),
        torch.zeros_like,
        (Bend.STRAIGHT,),
        corners=corners,
        size=of_whole,
        steps=Steps(shift=shift),
    )


def _truncated(low: float, high: float) -> Function:
    """As a number becomes an integer of a type between low and high; beyond, it may be any."""

    def corners(lower: Tensor, upper: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [
            *_floors(lower.clamp(min=0), upper.clamp(min=0)),
            *_ceils(lower.clamp(max=0), upper.clamp(max=0)),
        ]

    return Function(
        through(lambda x: x.trunc().clamp(low, high)),
        torch.zeros_like,
        (Bend.STRAIGHT,),
        corners=corners,
        outside=lambda lower, upper: ~((lower > low - 1) & (upper < high + 1)),
        least=low,
        most=high,
        size=of_whole,
        steps=Steps(shift=0.0),
    )


def _whole(low: float, high: float) -> Function:
    """A whole number in a type between low and high, around which it wraps."""

    def value(x: Tensor) -> Tensor:
        wrapped = low + torch.remainder(x - low, high - low + 1)
        return torch.where((x >= low - 0.5) & (x <= high + 0.5), x, wrapped)

    return Function(
        value,
        torch.ones_like,
        (Bend.STRAIGHT,),
        outside=lambda lower, upper: ~((lower > low - 0.5) & (upper < high + 0.5)),
        least=low - 0.5,
        most=high + 0.5,
        size=of_whole,
    )


def _within(limit: float) -> Function:
    """A value between -limit and limit, by how it was made: its parts do not show it."""
    return Function(
        lambda x: x, torch.ones_like, (Bend.STRAIGHT,), least=-limit, most=limit, size=of_argument
    )


def _hard_swish() -> Function:
    """x (x + 3) / 6, from 0 at -3 to x at 3."""

    def value(x: Tensor) -> Tensor:
        return x * (x / 6 + 0.5).clamp(0, 1)

    def derivative(x: Tensor) -> Tensor:
        return torch.where(x.abs() <= 3, x / 3 + 0.5, (x > 0).to(x.dtype))

    return Function(
        value,
        derivative,
        (Bend.STRAIGHT, Bend.UP, Bend.STRAIGHT),
        (-3.0, 3.0),
        turns=(-3.0, -1.5, 3.0),
        size=of_argument,
    )


def _thresholded(alpha: float) -> Function:
    """x above alpha, else 0."""

    def value(x: Tensor) -> Tensor:
        return torch.where(x > alpha, x, 0.0)

    return Function(
        value,
        lambda x: (x > alpha).to(x.dtype),
        _FLAT,
        (alpha,),
        corners=jump(alpha, 0.0, 0.0, alpha),
        size=of_argument,
    )


FAMILIES = {
    "Ceil": Family({}, lambda: _staircase(torch.ceil, _ceils)),
    "Floor": Family({}, lambda: _staircase(torch.floor, _floors)),
    "HardSwish": Family({}, _hard_swish),
    "Round": Family({}, lambda: _staircase(torch.round, _rounds, 0.5)),
    "Sign": Family({}, lambda: _step(-1.0, 0.0, 1.0)),
    "ThresholdedRelu": Family({"alpha": 1.0}, _thresholded),
}
# No operators of ONNX by themselves: what comparisons, changes of type, norms are made of.
INNER = {
    "NotNegative": Family({}, lambda: _step(0.0, 1.0, 1.0)),
    "Positive": Family({}, lambda: _step(0.0, 0.0, 1.0)),
    "Truncated": Family({"low": 0.0, "high": 1.0}, _truncated),
    "Whole": Family({"low": 0.0, "high": 1.0}, _whole),
    "WholeZero": Family({}, _near),
    "Within": Family({"limit": 1.0}, _within),
    "Zero": Family({}, lambda: _step(0.0, 1.0, 0.0)),
}
