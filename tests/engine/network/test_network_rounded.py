"""The error that comes with a computed constant is never too small: held against fractions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engine.network.rounded import Rounded

numbers = st.floats(-(2.0**60), 2.0**60, allow_nan=False).map(
    lambda x: x if abs(x) > 1e-60 else 0.0
)
tiny = st.floats(-(2.0**-1060), 2.0**-1060)
errors = st.floats(0, 1e-3)


def rounded(value: float, share: float) -> tuple[Rounded, list[Fraction]]:
    """A value with an error, and exact values that it may stand for."""
    error = abs(value) * share
    one = Rounded(np.array([value]), np.array([error]))
    return one, [Fraction(value) + sign * Fraction(error) for sign in (-1, 0, 1)]


def holds(result: Rounded, exact: Fraction) -> bool:
    value, error = Fraction(float(result.value[0])), Fraction(float(result.error[0]))
    return abs(value - exact) <= error


@given(numbers | tiny, numbers | tiny, errors, errors)
def test_sum_difference_and_product_hold_every_exact_value(
    one: float, other: float, first: float, second: float
) -> None:
    a, exact_a = rounded(one, first)
    b, exact_b = rounded(other, second)
    for x in exact_a:
        for y in exact_b:
            assert holds(a + b, x + y)
            assert holds(a - b, x - y)
            assert holds(a * b, x * y)


@given(st.lists(st.tuples(numbers | tiny, errors), min_size=4, max_size=4))
def test_sums_of_products_hold_every_exact_value(entries: list[tuple[float, float]]) -> None:
    pairs = [rounded(*entry) for entry in entries]
    ends = [exact[::2] for _, exact in pairs]
    row, column = (
        Rounded(
            *(np.concatenate([getattr(a, part) for a, _ in half]) for part in ("value", "error"))
        )
        for half in (pairs[:2], pairs[2:])
    )
    product, total = row.reshape(1, 2) @ column.reshape(2, 1), row.sum((0,))
    for a, b, c, d in itertools.product(*ends):
        assert holds(product.reshape(1), a * c + b * d)
        assert holds(total, a + b)


@given(numbers.filter(bool), errors)
def test_a_reciprocal_holds_every_exact_value(value: float, error: float) -> None:
    a, exact = rounded(value, error)
    for x in exact:
        assert holds(a.reciprocal(), 1 / x)


@given(numbers.map(abs).filter(bool), errors)
def test_a_root_holds_every_exact_value(value: float, error: float) -> None:
    a, exact = rounded(value, error)
    root = a.sqrt()
    low, high = (
        Fraction(float(root.value[0])) + sign * Fraction(float(root.error[0])) for sign in (-1, 1)
    )
    for x in exact:
        assert max(low, Fraction(0)) ** 2 <= x <= high**2


def test_what_rounds_nothing_is_exact() -> None:
    short = Rounded.exact(np.array([0.1, 1e-20], np.float32))
    assert (short * Rounded.exact(np.array([0.3, 1e-20], np.float32))).is_exact
    assert (Rounded.exact([1 / 3]) * Rounded.exact([0.25])).is_exact
    assert (Rounded.exact([1.0]) + Rounded.exact([2.0**-52])).is_exact
    assert Rounded.exact([8.0]).reciprocal().is_exact


def test_what_rounds_is_not() -> None:
    assert not (Rounded.exact([1 / 3]) * Rounded.exact([3.0])).is_exact
    assert not (Rounded.exact([1.0]) + Rounded.exact([2.0**-54])).is_exact
    assert not Rounded.exact([3.0]).reciprocal().is_exact
    assert not (Rounded.exact([2.0**-1000]) * Rounded.exact([2.0**-1000])).is_exact


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_what_has_no_value_is_no_finite_number(value: float) -> None:
    if value == 0:
        assert math.isinf(Rounded.exact([value]).reciprocal().value[0])
    else:
        assert math.isnan(Rounded.exact([value]).sqrt().value[0])
