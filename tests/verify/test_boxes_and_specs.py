"""A case as tensors: boxes rounded the right way, and margins of disjuncts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from questions import anything, case, region
from small_networks import CPU

from runner.property.model import Case
from runner.verify.specs import Specs, box_around, box_within

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


@given(intervals())
def test_the_box_within_holds_every_float32_of_the_case_and_no_other(interval: Case) -> None:
    low, high = interval.lower[0], interval.upper[0]
    lower, upper = ends(box_within(interval, (1,), CPU))
    around = ends(box_around(interval, (1,), CPU))
    if float(lower) >= low and float(upper) <= high:
        assert lower <= upper
        assert float(np.nextafter(lower, np.float32(-np.inf))) < low
        assert float(np.nextafter(upper, np.float32(np.inf))) > high
    else:
        # None lies between the limits: a neighbour stands in.
        assert lower == upper == np.float32(low)
        assert around[1] == np.nextafter(around[0], np.float32(np.inf))


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
