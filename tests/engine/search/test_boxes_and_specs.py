"""A case as tensors: boxes rounded the right way, and margins of disjuncts."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from questions import anything, case, region
from small_networks import CPU

from runner.engine.bounds.interval import Interval
from runner.engine.specs import Specs, box_around, box_within
from runner.problem.property.model import Case
from runner.problem.property.numbers import Limit, Limits

reals = st.floats(-1e30, 1e30, allow_subnormal=True)


@st.composite
def intervals(draw: st.DrawFn) -> Case:
    """Wide, thin (between two float32 values) and points; around 0 and far from it."""
    lower = draw(reals)
    widths = st.sampled_from([0.0, 1e-18, 1e-9, 3e-8, 1e-7, 1.0]).map(lambda w: w * abs(lower))
    upper = draw(st.one_of(reals, widths.map(lambda width: lower + width)))
    return case([min(lower, upper)], [max(lower, upper)])


def ends(box: object) -> tuple[np.float32, np.float32]:
    lower, upper = box.lower, box.upper  # type: ignore[attr-defined]
    assert lower.dtype == upper.dtype == torch.float32
    return np.float32(lower.item()), np.float32(upper.item())


@given(intervals())
def test_the_box_around_is_the_smallest_that_contains_the_case(interval: Case) -> None:
    low, high = interval.lower[0], interval.upper[0]
    lower, upper = ends(box_around(interval, (1,), CPU))
    assert float(lower) <= low
    assert float(upper) >= high
    assert float(np.nextafter(lower, np.float32(np.inf))) > low
    assert float(np.nextafter(upper, np.float32(-np.inf))) < high


@given(reals)
def test_a_decimal_does_not_vary_but_a_box_around_it_does(value: float) -> None:
    for dtype in (torch.float32, torch.float64):
        if abs(value) < 1e30:
            point = box_around(case([value], [value]), (1,), CPU, dtype)
            assert not bool(point.varying)
        wide = case([value - 1e-5 * (1 + abs(value))], [value])
        assert bool(box_around(wide, (1,), CPU, dtype).varying)


def test_what_is_no_number_varies() -> None:
    nothing = torch.tensor([torch.nan])
    assert bool(Interval(nothing, nothing).varying)


def exactly(lower: Fraction, upper: Fraction) -> Case:
    return Case.between((Limits(Limit.of(lower), Limit.of(upper)),), ())


@st.composite
def gaps(draw: st.DrawFn) -> Case:
    """Between two neighbours of a dtype, at distances from each that may be within tolerance."""
    kinds: list[type[np.floating]] = [np.float32, np.float64]
    kind = draw(st.sampled_from(kinds))
    start = kind(draw(st.floats(-(2.0**60), 2.0**60, width=32)))
    below, above = Fraction(float(start)), Fraction(float(np.nextafter(start, kind(np.inf))))
    shares = sorted(draw(st.tuples(*[st.fractions(0, 1, max_denominator=10**6)] * 2)))
    return exactly(*(below + share * (above - below) for share in shares))


DTYPES = [(torch.float32, np.float32), (torch.float64, np.float64)]


@pytest.mark.parametrize(("dtype", "kind"), DTYPES)
@given(one=st.one_of(intervals(), gaps()))
def test_the_box_within_holds_every_value_of_the_case_and_no_other(
    one: Case, dtype: torch.dtype, kind: type[np.floating]
) -> None:
    low, high = (limit.exact for limit in one.limits_of(0))
    box = box_within(one, (1,), CPU, dtype)
    assert box.lower.dtype == box.upper.dtype == dtype
    lower, upper = kind(box.lower.item()), kind(box.upper.item())
    before = Fraction(float(np.nextafter(lower, kind(-np.inf))))
    after = Fraction(float(np.nextafter(upper, kind(np.inf))))
    assert lower <= upper
    if any(low <= Fraction(float(end)) <= high for end in (lower, upper)):
        assert before < low <= Fraction(float(lower))
        assert Fraction(float(upper)) <= high < after
        return
    # None lies between the limits: what these round to stands in, and no value is nearer.
    assert (lower, upper) == (kind(float(low)), kind(float(high)))
    distances = [max(low - value, value - high) for value in map(Fraction, (before, after))]
    nearest = min(abs(low - Fraction(float(lower))), abs(Fraction(float(upper)) - high))
    assert all(distance >= nearest for distance in distances)


@pytest.mark.parametrize(
    ("lower", "upper", "dtype", "points"),
    [
        ("0.7", "0.7", torch.float32, (0.699999988079071, 0.699999988079071)),
        ("16777217", "16777217", torch.float32, (16777216.0, 16777216.0)),
        ("16777216.9", "16777217.95", torch.float32, (16777216.0, 16777218.0)),
        ("16777216.00001", "16777217", torch.float32, (16777216.0, 16777216.0)),
        ("16777217.5", "16777217.9", torch.float32, (16777218.0, 16777218.0)),
        ("16777217", "16777217", torch.float64, (16777217.0, 16777217.0)),
        ("1700000010", "1700000050", torch.float64, (1700000010.0, 1700000050.0)),
        ("1e300", "1e301", torch.float32, (3.4028234663852886e38, 3.4028234663852886e38)),
        ("-1e300", "1e300", torch.float32, (-3.4028234663852886e38, 3.4028234663852886e38)),
    ],
)
def test_values_that_stand_in_where_there_are_none(
    lower: str, upper: str, dtype: torch.dtype, points: tuple[float, float]
) -> None:
    box = box_within(exactly(Fraction(lower), Fraction(upper)), (1,), CPU, dtype)
    assert (box.lower.item(), box.upper.item()) == points


def test_boxes_have_the_shape_of_the_input() -> None:
    one = case([0, 1, 2, 3], [1, 2, 3, 4])
    for box in (box_around(one, (1, 2, 2), CPU), box_within(one, (1, 2, 2), CPU)):
        assert box.lower.tolist() == [[[[0, 1], [2, 3]]]]
        assert box.upper.tolist() == [[[[1, 2], [3, 4]]]]


def test_a_disjunct_is_as_far_from_unsafe_as_its_best_row() -> None:
    specs = Specs.of(
        case([0], [1], region([[1, 0], [0, 1]], [1, 2]), anything(2), region([[1, 1]], [0])), CPU
    )
    assert specs.rows.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert specs.rows.dtype == torch.float64
    assert specs.disjunct.tolist() == [0, 0, 2]
    assert specs.margins(torch.tensor([0.0, 5.0, -1.0]).double()).tolist() == [3, -math.inf, -1]


def test_a_selection_and_a_part_keep_the_numbers_of_disjuncts() -> None:
    specs = Specs.of(case([0], [1], *(region([[n, 0], [n, 1]], [n, n]) for n in range(3))), CPU)
    some = specs.select(torch.tensor([True, False, True]))
    assert some.rows.tolist() == [[0, 0], [0, 1], [2, 0], [2, 1]]
    assert some.margins(torch.ones(4).double()).tolist() == [1, -math.inf, -1]
    assert specs.part(1, 3).disjunct.tolist() == [0, 1]
    assert specs.part(1, 3).thresholds.tolist() == [0, 1]


@pytest.mark.parametrize("unsafe", [(), (anything(),)])
def test_a_case_without_rows_has_none(unsafe: tuple[object, ...]) -> None:
    specs = Specs.of(case([0], [1], *unsafe), CPU)  # type: ignore[arg-type]
    assert len(specs.rows) == len(specs.thresholds) == len(specs.disjunct) == 0
    assert specs.margins(torch.zeros(0).double()).tolist() == [-math.inf] * len(unsafe)
