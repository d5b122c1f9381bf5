"""Whether a point lies in a box: by exact arithmetic, and by the rule of VNN-COMP's checker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from runner.problem.property.model import Case, Vector
from runner.problem.property.numbers import Exact, Limit, Limits, exact

# Absolute, on each side of the box; the output has none. The checker computes in float64.
INPUT_TOLERANCE = Fraction(1, 10_000)
CHECKER_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Outside:
    """The input of a point that lies furthest outside its limits, and how far."""

    index: int
    digits: str
    limits: Limits
    excess: Exact

    @property
    def tolerated(self) -> bool:
        return self.excess <= INPUT_TOLERANCE

    def said(self, name: str) -> str:
        """In words; `name` is the input's."""
        lower, upper = (f"{float(limit.exact)!r}" for limit in self.limits)
        between = f"its value {lower}" if lower == upper else f"its limits {lower} and {upper}"
        return f"{name} = {self.digits} lies {float(self.excess):.3g} outside {between}"


def outside(case: Case, digits: Sequence[str]) -> Outside | None:
    """How far a point, as it is printed, lies outside the box; None if it lies inside.

    Raises OutOfRangeError for what is no finite number.
    """
    point = np.array([float(value) for value in digits], dtype=np.float64)
    least, greatest = case.within
    # Digits lie nearer to the float64 that they read as than to any that is strictly beyond it.
    doubtful = np.flatnonzero(~((least < point) & (point < greatest)))
    found: Outside | None = None
    for index in doubtful.tolist():
        value, limits = exact(digits[index]), case.limits_of(index)
        if not limits.lower <= Limit.of(value) <= limits.upper:
            excess = max(limits.lower.exact - value, value - limits.upper.exact, 0)
            if found is None or excess > found.excess:
                found = Outside(index, digits[index], limits, excess)
    return found


def excess_in(dtype: type[np.floating], case: Case, point: Vector) -> float:
    """As the checker has it, which rounds limits and values to the network's own input type: 0
    where a point then lies in the box, else how far outside it is in float64.
    """
    with np.errstate(over="ignore"):
        x, lower, upper = (side.astype(dtype) for side in (point, *case.nearest))
    if np.all((lower <= x) & (x <= upper)):
        return 0.0
    below, above = case.nearest[0] - point, point - case.nearest[1]
    return float(np.nan_to_num(np.maximum(below, above), nan=np.inf).max())
