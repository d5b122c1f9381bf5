"""What is known of a function of one variable, from which its bounds and lines follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

Values = Callable[[Tensor], Tensor]
# Places and values there of a function over [lower, upper], from lower and upper.
Corners = Callable[[Tensor, Tensor], list[tuple[Tensor, Tensor]]]
# Whole numbers are exact up to here, and so are those half-way.
_EXACT = 2.0**51


class Bend(StrEnum):
    """How a piece of a function bends: above its tangents, below them, or not at all."""

    UP = "up"
    DOWN = "down"
    STRAIGHT = "straight"


def _of_value(x: Tensor, value: Tensor) -> Tensor:
    return 1 + value.abs()


def of_argument(x: Tensor, value: Tensor) -> Tensor:
    """The `size` of what is x times something between -2 and 2."""
    return 1 + x.abs()


def of_whole(x: Tensor, value: Tensor) -> Tensor:
    """The `size` of a step: exact, as far as whole numbers are."""
    return torch.where(x.abs() < _EXACT, 0.0, x.abs())


def _no_corners(lower: Tensor, upper: Tensor) -> list[tuple[Tensor, Tensor]]:
    return []


def nowhere(lower: Tensor, upper: Tensor) -> Tensor:
    return torch.zeros_like(lower, dtype=torch.bool)


@dataclass(frozen=True)
class Steps:
    """Where a function jumps that has one value between two jumps that follow each other, and only
    whole values: at `places`, and, where `shift` is given, that far behind every whole number.
    """

    places: tuple[float, ...] = ()
    shift: float | None = None

    def between(self, low: float, high: float, most: int) -> list[float] | None:
        """The jumps in [low, high]; None where they are more than `most`, or no longer exact."""
        if not (abs(low) < _EXACT and abs(high) < _EXACT):
            return None
        found = [place for place in self.places if low <= place <= high]
        if self.shift is not None:
            first, last = math.floor(low) - 1, math.ceil(high) + 1
            if last - first - 1 > most:
                return None
            every = (whole + self.shift for whole in range(first, last + 1))
            found += [place for place in every if low <= place <= high]
        return found


@dataclass(frozen=True)
class Function:
    """f, as far as bounds ask for it; all in float64 there.

    value, derivative: of each entry; the gradient of `value` is what attacks follow. places, bends:
    f bends one way between two places that follow each other, and up to the first and from the last
    on; a straight piece may end in a jump. At a place, `derivative` is that of the piece that
    bends. turns: where f may be least or greatest beside the ends
    of an interval and its corners. corners: of f over [lower, upper], what it is at, or comes
    arbitrarily near to, where it jumps or has a kink. outside: where nothing is known of f over
    [lower, upper] but `least` and `most`, which hold everywhere. size: what 64 roundings of float64
    are relative to, which is more than a computed value and derivative are off by. steps: the jumps
    of a step function, where it is known; its computed values are exact between 2^51 either way.
    """

    value: Values
    derivative: Values
    bends: tuple[Bend, ...]
    places: tuple[float, ...] = ()
    turns: tuple[float, ...] = ()
    corners: Corners = _no_corners
    outside: Callable[[Tensor, Tensor], Tensor] = nowhere
    least: float = -torch.inf
    most: float = torch.inf
    size: Callable[[Tensor, Tensor], Tensor] = _of_value
    steps: Steps | None = None


@dataclass(frozen=True)
class Family:
    """Functions by their attributes, which are those of ONNX's operator of that name.

    defaults: of each attribute; make: takes them by name.
    """

    defaults: dict[str, float | str]
    make: Callable[..., Function]


def jump(place: float, left: float, at: float, right: float) -> Corners:
    """The corners of a jump from `left` to `right`; at the place itself f is `at`."""

    def corners(lower: Tensor, upper: Tensor) -> list[tuple[Tensor, Tensor]]:
        x = torch.full_like(lower, place)
        sides = (
            ((lower < x) & (x <= upper), left),
            ((lower <= x) & (x <= upper), at),
            ((lower <= x) & (x < upper), right),
        )
        return [where_known(holds, x, torch.full_like(x, y), lower) for holds, y in sides]

    return corners


def where_known(holds: Tensor, x: Tensor, y: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
    """A corner, and where it does not hold none: not a number, which is in no extreme."""
    return torch.where(holds, x, lower), torch.where(holds, y, torch.nan)


class _Through(torch.autograd.Function):
    """A step, with a gradient as if it were one: straight through (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Values, slope: Values) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return value(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * ctx.slope(x), None, None


def through(value: Values, slope: Values = torch.ones_like) -> Values:
    """`value` with a gradient that is not its own, which is zero wherever there is one."""
    return lambda x: followed(x, value, slope)


def followed(x: Tensor, value: Values, slope: Values) -> Tensor:
    """`value` of x, with `slope` as the gradient that an attack follows."""
    if not x.requires_grad or torch._C._get_tracing_state():  # auto_LiRPA's, which bounds it
        return value(x)
    found: Tensor = _Through.apply(x, value, slope)
    return found


def joined(parts: Sequence[Corners]) -> Corners:
    return lambda lower, upper: [corner for part in parts for corner in part(lower, upper)]
