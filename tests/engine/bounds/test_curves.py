"""Bounds of, and lines around, functions of one variable and products hold at every point, however
narrow, wide or far away the interval is, and are near the best there are.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sound_bounds import at_least
from torch import Tensor

from runner.engine.bounds import curves, product
from runner.engine.network.evaluate import FUNCTIONS
from runner.engine.network.graph import Op

DTYPES = [torch.float32, torch.float64]
POSITIVE = (Op.SQRT, Op.RECIPROCAL)
# The functions of NumPy are good to an ulp or two of float64.
TOLERANCE = 1e-14

numbers = st.one_of(
    st.floats(-8, 8, width=32),
    st.floats(-1e4, 1e4, width=32),
    st.floats(-(2.0**-20), 2.0**-20, width=32),
    st.sampled_from([0.0, 1e30, -1e30, math.pi, -math.pi / 2, 88.0, 1e-30]),
)
intervals = st.tuples(numbers, st.one_of(st.just(0.0), numbers.map(abs))).map(
    lambda ends: (ends[0], ends[0] + ends[1])
)


def of_ends(ends: tuple[float, float], op: Op, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    lower, upper = (torch.tensor([[end]], dtype=dtype) for end in ends)
    if op in POSITIVE:
        lower, upper = lower.abs(), lower.abs() + (upper - lower)
        lower = lower if op is Op.SQRT else lower + 1e-6
        upper = torch.maximum(upper, lower)
    return lower, torch.maximum(lower, upper)


def points(lower: Tensor, upper: Tensor) -> np.ndarray:
    """Both ends and between, where the function turns too."""
    low, high = float(lower), float(upper)
    inner = low + (high - low) * np.linspace(0, 1, 201)
    first = math.ceil(low / (math.pi / 2)) if abs(low) < 1e6 else 0
    turns = (first + np.arange(12)) * (math.pi / 2)
    return np.clip(np.concatenate((inner, turns)), low, high)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", FUNCTIONS)
@examples(300)
@given(ends=intervals)
def test_lines_and_bounds_hold_at_every_point(
    op: Op, dtype: torch.dtype, ends: tuple[float, float]
) -> None:
    lower, upper = of_ends(ends, op, dtype)
    x = points(lower, upper)
    with np.errstate(over="ignore"):
        value = FUNCTIONS[op](torch.from_numpy(x)).numpy()
    slack = TOLERANCE * np.abs(value) + 1e-300
    if op in (Op.SIN, Op.COS):
        slack = slack + TOLERANCE
    least, most = (float(end) for end in curves.interval(op, lower, upper))
    assert at_least(value, slack, least)
    assert at_least(-value, slack, -most)
    lines = curves.relax(op, lower, upper)
    for sign, slope, offset in (
        (1, lines.lower_slope, lines.lower_offset),
        (-1, lines.upper_slope, lines.upper_offset),
    ):
        product_ = float(slope) * x
        size = abs(float(offset)) if offset.isfinite() else 0.0
        room = slack + TOLERANCE * (np.abs(product_) + size)
        line = product_ + float(offset)
        assert at_least(sign * value, room, sign * line), (float(slope), float(offset))


@pytest.mark.parametrize("op", FUNCTIONS)
def test_lines_are_as_near_as_tangent_and_chord(op: Op) -> None:
    """Over [1, 1.5] the area between them is half again that of the convex hull."""
    lower, upper = torch.tensor([[1.0]]), torch.tensor([[1.5]])
    lines = curves.relax(op, lower, upper)
    x = torch.linspace(1.0, 1.5, 1001, dtype=torch.float64)
    value = FUNCTIONS[op](x)
    chord = value[0] + (value[-1] - value[0]) * torch.linspace(0, 1, 1001, dtype=torch.float64)
    hull = float((value - chord).abs().mean())
    below = float(lines.lower_slope) * x + float(lines.lower_offset)
    above = float(lines.upper_slope) * x + float(lines.upper_offset)
    assert float((above - below).mean()) <= 1.6 * hull


@pytest.mark.parametrize("op", POSITIVE)
def test_outside_its_domain_nothing_is_known(op: Op) -> None:
    ends = torch.tensor([[-1.0]]), torch.tensor([[2.0]])
    least, most = curves.interval(op, *ends)
    assert (float(least), float(most)) == (-math.inf, math.inf)
    lines = curves.relax(op, *ends)
    assert (float(lines.lower_offset), float(lines.upper_offset)) == (-math.inf, math.inf)


@pytest.mark.parametrize("dtype", DTYPES)
@examples(300)
@given(first=intervals, second=intervals)
def test_planes_and_bounds_of_a_product_hold_at_every_point(
    dtype: torch.dtype, first: tuple[float, float], second: tuple[float, float]
) -> None:
    ends = torch.tensor([first, second], dtype=dtype).T
    lower, upper = ends.amin(0)[None, :, None], ends.amax(0)[None, :, None]
    x, y = (np.linspace(float(lower[0, i]), float(upper[0, i]), 17) for i in (0, 1))
    grid = np.stack(np.meshgrid(x, y), -1)
    value = grid[..., 0] * grid[..., 1]
    least, most = (float(end) for end in product.interval(lower, upper))
    slack = TOLERANCE * np.abs(value)
    assert (value >= least - slack).all()
    assert (value <= most + slack).all()
    planes = product.relax(lower, upper)
    slopes = planes.slopes[0, :, 0].double().numpy()
    linear = grid @ slopes
    room = slack + TOLERANCE * (np.abs(grid) @ np.abs(slopes)) * 4
    assert at_least(value, room, linear + float(planes.below))
    assert at_least(-value, room, -linear - float(planes.above))


def test_a_factor_that_is_fixed_costs_nothing() -> None:
    lower, upper = torch.tensor([[[-1.0], [3.0]]]), torch.tensor([[[2.0], [3.0]]])
    planes = product.relax(lower, upper)
    assert float(planes.above - planes.below) < 1e-4
