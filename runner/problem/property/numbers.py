"""Numbers as files write them: exact, and where they lie between float64 values."""

from __future__ import annotations

import math
from decimal import Decimal, DecimalException
from fractions import Fraction
from typing import NamedTuple, TypeAlias

Exact: TypeAlias = "int | Fraction"

# A number of more than a thousand places would cost more to compute with than it could matter.
_LEAST_EXPONENT = -1000


class OutOfRangeError(ValueError):
    """A number that float64 cannot hold; the message says what to do about it."""


def exact(digits: str) -> Exact:
    """The value of a decimal number, with or without an exponent. Raises OutOfRangeError."""
    if len(digits) < 16 and digits.isdecimal():
        return int(digits)
    if not math.isfinite(float(digits)):
        raise OutOfRangeError(f"{digits} is too large for float64; scale the constraint")
    try:
        value = Decimal(digits)
    except DecimalException as error:
        raise OutOfRangeError(_too_small(digits)) from error
    if not value:
        return 0
    if value.adjusted() < _LEAST_EXPONENT:
        raise OutOfRangeError(_too_small(digits))
    return Fraction(*value.as_integer_ratio())  # quicker than of the Decimal itself


def _too_small(digits: str) -> str:
    return f"{digits} is too close to 0 for float64; write 0, or scale the constraint"


class Limit(NamedTuple):
    """Where one side of an interval ends: at `exact`, or where a strict bound excludes that
    number, infinitely little above (`nudge` 1) or below it (-1).

    `below` and `above` are the nearest float64 values that are not above and not below the limit.
    Limits compare as they lie on the line; `below` is first because it mostly decides at once.
    """

    below: float
    exact: Exact
    nudge: int
    above: float

    def __hash__(self) -> int:
        return hash(self.below)  # of a fraction, it would take longer than all else

    @staticmethod
    def of(value: Exact, nudge: int = 0) -> Limit:
        """Raises OverflowError beyond float64's range."""
        near = float(value) + 0.0  # never -0.0
        numerator, denominator = near.as_integer_ratio()
        beside_near = (value.numerator * denominator - numerator * value.denominator, nudge)
        below = math.nextafter(near, -math.inf) if beside_near < (0, 0) else near
        above = math.nextafter(near, math.inf) if beside_near > (0, 0) else near
        return Limit(below, value, nudge, above)

    def said(self, closed: str, open_: str) -> str:
        """In words: those of a limit that belongs to the interval, or of one that does not."""
        return f"{open_ if self.nudge else closed} {float(self.exact)!r}"


class Limits(NamedTuple):
    """Between two limits; empty where they are crossed."""

    lower: Limit
    upper: Limit
