"""Exact numbers, and limits between float64 values."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.problem.property.numbers import Limit, OutOfRangeError, exact

floats = st.floats(allow_nan=False, allow_infinity=False)
# float64 values, and fractions so near to them that rounding to float64 gives these values.
values = st.builds(
    lambda value, shift: Fraction(value) + Fraction(shift, 3) * Fraction(math.ulp(value)) / 10,
    floats.filter(lambda value: abs(value) < 1e308),
    st.integers(-2, 2),
)
nudges = st.sampled_from((-1, 0, 1))


@given(floats, st.integers(-(10**60), 10**60))
def test_digits_have_the_value_that_they_say(value: float, whole: int) -> None:
    assert exact(repr(value)) == Fraction(repr(value))
    assert exact(str(whole)) == whole


@pytest.mark.parametrize(
    ("digits", "words"),
    [("1e400", "too large"), ("-1e400", "too large"), ("1e-99999999999999999999", "close to 0")],
)
def test_what_float64_cannot_hold_is_refused(digits: str, words: str) -> None:
    with pytest.raises(OutOfRangeError, match=f"{digits} is .*{words}"):
        exact(digits)


@given(values, nudges)
def test_a_limit_lies_between_the_nearest_float64_values(value: Fraction, nudge: int) -> None:
    limit = Limit.of(value, nudge)
    assert limit.below <= value <= limit.above
    if nudge or limit.below != value:
        assert limit.above == math.nextafter(limit.below, math.inf)
    else:
        assert limit.above == limit.below
    # What a strict bound excludes is on its other side.
    assert not (limit.below == value and nudge == -1)
    assert not (limit.above == value and nudge == 1)


@given(values, nudges, st.integers(-1, 1), nudges)
def test_limits_compare_as_they_lie_on_the_line(
    value: Fraction, nudge: int, steps: int, other_nudge: int
) -> None:
    other = value + Fraction(steps, 10**400)
    one, two = Limit.of(value, nudge), Limit.of(other, other_nudge)
    assert (one < two) == ((value, nudge) < (other, other_nudge))
    assert (one == two) == ((value, nudge) == (other, other_nudge))
    assert one != two or hash(one) == hash(two)
