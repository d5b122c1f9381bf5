"""Every function of one variable that is declared: bounds and lines hold at every point, however
narrow, wide or far away the interval is, and are near the best there are. One without a sample of
its attributes here fails the suite.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sound_bounds import at_least
from torch import Tensor

from runner.engine import functions
from runner.engine.bounds import function
from runner.engine.functions import function_of
from runner.engine.functions.family import Function
from runner.engine.network.graph import Node, Op

DTYPES = [torch.float32, torch.float64]
# What the functions of torch may be off by in float64, relative to `Function.size`.
TOLERANCE = 1e-14
SAMPLES: dict[str, list[dict[str, float | str]]] = {
    "Celu": [{"alpha": 1.0}, {"alpha": 0.3}, {"alpha": -2.0}],
    "Ceil": [{}],
    "Elu": [{"alpha": 1.0}, {"alpha": 3.0}, {"alpha": -0.5}, {"alpha": 0.0}],
    "Erf": [{}],
    "Exp": [{}],
    "Floor": [{}],
    "Gelu": [{"approximate": "none"}, {"approximate": "tanh"}],
    "HardSwish": [{}],
    "Log": [{}],
    "Mish": [{}],
    "NotNegative": [{}],
    "Positive": [{}],
    "Power": [{"exponent": p} for p in (5.0, 6.0, 2.5, 1.5, 0.25, -0.7, -2.0, -3.0)],
    "Round": [{}],
    "Selu": [{"alpha": 1.6732632, "gamma": 1.050701}, {"alpha": 2.0, "gamma": 0.5}],
    "Sign": [{}],
    "Softplus": [{}],
    "Softsign": [{}],
    "ThresholdedRelu": [{"alpha": 1.0}, {"alpha": -0.5}, {"alpha": 0.0}],
    "Truncated": [{"low": 0.0, "high": 255.0}, {"low": -(2.0**31), "high": 2.0**31 - 1}],
    "Whole": [{"low": 0.0, "high": 255.0}],
    "WholeZero": [{}],
    "Within": [{"limit": 1e31}],
    "Zero": [{}],
    "Sigmoid": [{}],
    "Tanh": [{}],
}
STEPS = {"Ceil", "Floor", "Round", "Truncated", "Sign", "Positive", "NotNegative", "WholeZero"}
CASES = [
    pytest.param(n, a, id=f"{n}{list(a.values())}") for n, all_ in SAMPLES.items() for a in all_
]


def intervals(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Of all sizes and places, a quarter of no width: in float32, which both precisions have."""
    generator = np.random.default_rng(0)
    special = np.array([0.0, 0.5, 1.0, -1.0, -3.0, 3.0, 2.5, 1e30, -1e30, 88.0, 1e-30, 2.0**24])

    def numbers() -> np.ndarray:
        kinds = [generator.uniform(-r, r, count) for r in (8.0, 8.0, 1e4, 2.0**-20)]
        return np.choose(
            generator.integers(0, 5, count), [*kinds, generator.choice(special, count)]
        )

    low = numbers()
    width = np.where(generator.uniform(size=count) < 0.25, 0.0, np.abs(numbers()))
    return low.astype(np.float32), (low + width).astype(np.float32)


def made(name: str, attributes: dict[str, float | str]) -> Function:
    return function_of(Node("y", Op.FUNCTION, ("x",), (1,), {"function": name, **attributes}))


def points(f: Function, low: float, high: float) -> Tensor:
    """Both ends and between, and beside every place where the function turns or jumps."""
    special = [*f.places, *f.turns, *(math.floor(low) + k / 2 for k in range(5))]
    special += [math.ceil(high) - k / 2 for k in range(5)]
    near = [np.nextafter(place, way) for place in special for way in (-np.inf, np.inf)]
    inner = low + (high - low) * np.linspace(0, 1, 201)
    return torch.from_numpy(np.clip(np.concatenate((inner, special, near)), low, high))


def finite(size: float) -> float:
    return size if math.isfinite(size) else 0.0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "attributes"), CASES)
def test_lines_and_bounds_hold_at_every_point(
    name: str, attributes: dict[str, float | str], dtype: torch.dtype
) -> None:
    f = made(name, attributes)
    low, high = intervals()
    lower, upper = (torch.from_numpy(end)[None].to(dtype) for end in (low, high))
    least, most = (end[0].tolist() for end in function.interval(f, lower, upper))
    lines = function.relax(f, lower, upper)
    below = lines.lower_slope[0].tolist(), lines.lower_offset[0].tolist()
    above = lines.upper_slope[0].tolist(), lines.upper_offset[0].tolist()
    outside = f.outside(lower.double(), upper.double())[0].tolist()
    for index, ends in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        if outside[index]:
            assert least[index] <= f.least
            assert most[index] >= f.most
            continue
        x = points(f, *ends)
        value = f.value(x)
        room = (TOLERANCE * f.size(x, value) + 1e-300).numpy()
        places, values = x.numpy(), value.numpy()
        for sign, bound, slope, offset in (
            (1, least[index], below[0][index], below[1][index]),
            (-1, most[index], above[0][index], above[1][index]),
        ):
            assert at_least(sign * values, room, sign * bound), (ends, sign, bound)
            line = slope * places + offset
            more = room + TOLERANCE * (np.abs(slope * places) + finite(abs(offset)))
            known = np.isfinite(values)  # what overflows says nothing
            holds = at_least(sign * values[known], more[known], sign * line[known])
            assert holds, (ends, sign, slope, offset)


@pytest.mark.parametrize(("name", "attributes"), CASES)
def test_lines_are_as_near_as_the_convex_hull(
    name: str, attributes: dict[str, float | str]
) -> None:
    """Half-way, where the best lines touch it: within a fiftieth of its height."""
    f = made(name, attributes)
    for low, high in ((-1.3, 2.9), (0.3, 0.8), (-4.0, 0.7), (-6.0, -2.0), (-0.4, 5.0)):
        lower, upper = torch.full((1, 1), low).double(), torch.full((1, 1), high).double()
        if bool(f.outside(lower, upper)):
            continue
        x = torch.linspace(low, high, 401, dtype=torch.float64)
        corners = [(p, v) for p, v in f.corners(lower, upper) if not v.isnan()]
        y = torch.cat([f.value(x), *(v.reshape(1) for _, v in corners)])
        x = torch.cat([x, *(p.reshape(1) for p, _ in corners)])
        middle = (low + high) / 2
        lines = function.relax(f, lower, upper)
        for sign, slope, offset in (
            (1, lines.lower_slope, lines.lower_offset),
            (-1, lines.upper_slope, lines.upper_offset),
        ):
            found = float(slope) * middle + float(offset)
            best = sign * hull_at(x, sign * y, middle)
            height = float(y.max() - y.min())
            assert sign * (best - found) <= 0.02 * height + 1e-9, (low, high, sign, best, found)


def hull_at(x: Tensor, y: Tensor, place: float) -> float:
    """The convex hull's lower edge there: the least of all chords."""
    left, right = x <= place, x >= place
    steep = (y[right][None] - y[left][:, None]) / (x[right][None] - x[left][:, None])
    chords = y[left][:, None] + steep * (place - x[left][:, None])
    return float(chords[chords.isfinite()].min())


@pytest.mark.parametrize(("name", "attributes"), CASES)
def test_its_derivative_is_that_of_its_values(
    name: str, attributes: dict[str, float | str]
) -> None:
    f = made(name, attributes)
    x = torch.linspace(0.06, 3.9, 40, dtype=torch.float64)
    x = x if bool(f.outside(-x[:1], -x[:1])) else torch.cat([-x, x])
    steep = (f.value(x + 1e-6) - f.value(x - 1e-6)) / 2e-6
    away = steep.abs() < 1e4  # from jumps
    torch.testing.assert_close(f.derivative(x)[away], steep[away], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(STEPS))
def test_the_gradient_goes_straight_through_a_step(name: str) -> None:
    f = made(name, SAMPLES[name][0])
    x = torch.tensor([0.2], requires_grad=True)
    (gradient,) = torch.autograd.grad(f.value(x).sum(), x)
    assert float(gradient) > 0 or name == "WholeZero"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(STEPS | {"Zero"}))
def test_a_step_that_the_interval_decides_is_exact(name: str, dtype: torch.dtype) -> None:
    f = made(name, SAMPLES[name][0])
    lower, upper = torch.tensor([[3.1]], dtype=dtype), torch.tensor([[3.4]], dtype=dtype)
    least, most = function.interval(f, lower, upper)
    assert float(least) == float(most) == float(f.value(lower))


def test_every_function_has_a_sample_here() -> None:
    assert SAMPLES.keys() == functions.ALL.keys()
