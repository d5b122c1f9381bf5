"""Whether a point lies in a box, against fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.problem.property.counterexample import printed
from runner.problem.property.inside import excess_in, outside
from runner.problem.property.model import Case
from runner.problem.property.numbers import Limit, Limits, OutOfRangeError

FLOAT32, FLOAT64 = np.float32, np.float64


def box(*sides: tuple[str, str], strict: bool = False) -> Case:
    """Of decimals."""
    nudge = 1 if strict else 0
    limits = [
        Limits(Limit.of(Fraction(low), nudge), Limit.of(Fraction(high), -nudge))
        for low, high in sides
    ]
    return Case.between(tuple(limits), ())


decimals = st.builds(
    lambda digits, places: f"{digits}e{places}", st.integers(-(10**8), 10**8), st.integers(-9, 9)
)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Case, list[str]]:
    """A box, and a point of values at its limits, beside them, and elsewhere."""
    sides, digits = [], []
    for _ in range(draw(st.integers(1, 4))):
        low, high = sorted([draw(decimals), draw(decimals)], key=Fraction)
        sides.append((low, high))
        near = float(draw(st.sampled_from((low, high))))
        value = draw(
            st.sampled_from(
                (
                    near,
                    math.nextafter(near, math.inf),
                    math.nextafter(near, -math.inf),
                    float(np.float32(near)),
                    near + 1e-4,
                    near - 1e-4,
                )
            )
        )
        digits += printed(np.array(value))
    return box(*sides, strict=draw(st.booleans())), digits


@given(questions())
def test_a_point_lies_as_far_outside_as_fractions_say(asked: tuple[Case, list[str]]) -> None:
    case, digits = asked
    excess = []
    for index, text in enumerate(digits):
        (low, high), value = case.limits_of(index), Fraction(text)
        if not (low.exact, low.nudge) <= (value, 0) <= (high.exact, high.nudge):
            excess.append(max(low.exact - value, value - high.exact))
    found = outside(case, digits)
    assert (found.excess if found else None) == (max(excess) if excess else None)


@given(questions())
def test_a_box_of_float64_values_is_as_exact(asked: tuple[Case, list[str]]) -> None:
    case, digits = asked
    rounded = Case(case.lower, case.upper, ())
    same = Case.between(tuple(rounded.limits_of(index) for index in range(len(digits))), ())
    assert outside(rounded, digits) == outside(same, digits)


def test_the_input_that_lies_furthest_outside_is_named_with_its_limits() -> None:
    found = outside(box(("0", "1"), ("101325.003", "101325.0031")), ["1.00001", "101325.0"])
    assert found is not None
    assert found.said("X_1") == (
        "X_1 = 101325.0 lies 0.003 outside its limits 101325.003 and 101325.0031"
    )
    pinned = outside(box(("0.7", "0.7")), ["0.5"])
    assert pinned is not None
    assert pinned.said("X_0") == "X_0 = 0.5 lies 0.2 outside its value 0.7"


@pytest.mark.parametrize(
    ("digits", "tolerated"), [("1.0001", True), ("1.00010000000000000001", False), ("1.1", False)]
)
def test_the_tolerance_is_exact(digits: str, tolerated: bool) -> None:
    found = outside(box(("0", "1")), [digits])
    assert found is not None
    assert found.tolerated is tolerated


def test_digits_count_as_they_are_printed() -> None:
    """The float64 that is called 1e300 is greater than 10 to the power of 300."""
    assert outside(box(("0", "1e300")), printed(np.array([1e300]))) is None


def test_what_is_excluded_by_a_strict_bound_lies_outside_by_nothing() -> None:
    found = outside(box(("0", "1"), strict=True), ["1.0"])
    assert found is not None
    assert (found.excess, found.tolerated) == (0, True)


def test_what_is_no_finite_number_is_refused() -> None:
    with pytest.raises(OutOfRangeError):
        outside(box(("0", "1")), ["nan"])


@pytest.mark.parametrize(
    ("dtype", "sides", "value", "excess"),
    [
        (FLOAT32, ("101325.003", "101325.0031"), 101325.0, 0.0),
        (FLOAT64, ("101325.003", "101325.0031"), 101325.0, 0.003),
        (FLOAT32, ("0", "0.1"), 0.10000000149, 0.0),
        (FLOAT32, ("0", "0.1"), 0.25, 0.15),
        (FLOAT32, ("0", "0.1"), math.nan, math.inf),
        (FLOAT32, ("0", "1e300"), 1e30, 0.0),
    ],
)
def test_the_checker_rounds_limits_to_the_networks_precision(
    dtype: type[np.floating], sides: tuple[str, str], value: float, excess: float
) -> None:
    assert excess_in(dtype, box(sides), np.array([value])) == pytest.approx(excess)
