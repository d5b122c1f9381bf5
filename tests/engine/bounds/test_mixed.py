"""Relaxations with a parameter: whatever it is, each side's line holds over the interval, also one
that is huge or a point; the gradient is that of the bound; and the choice is worth something.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from runner.engine.bounds.bundles import bundle
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.mixed import MixedRelaxation
from runner.engine.bounds.relaxed import BentRule
from runner.engine.network.evaluate import apply
from runner.engine.network.graph import Attribute, Node, Op

DTYPES = [torch.float32, torch.float64]
# What the functions of torch may be off by in float64, relative to what is computed with them.
TOLERANCE = 1e-14
POSITIVE = {"sqrt", "reciprocal", "Log"}
NAMES = [
    "sigmoid",
    "tanh",
    "exp",
    "sin",
    "cos",
    "square",
    "sqrt",
    "reciprocal",
    "Gelu",
    "Softplus",
    "Log",
    "Mish",
    "Elu",
    "Erf",
    "HardSwish",
    "Floor",
    "Sign",
]


def intervals(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Of all sizes and places, a quarter of no width, in float32."""
    generator = np.random.default_rng(seed)
    special = np.array([0.0, 1e30, -1e30, math.pi, -math.pi / 2, 88.0, 1e-30, -3.0])

    def numbers() -> np.ndarray:
        kinds = [generator.uniform(-r, r, count) for r in (2.0, 8.0, 1e4, 2.0**-20)]
        return np.choose(
            generator.integers(0, 5, count), [*kinds, generator.choice(special, count)]
        )

    low = numbers()
    width = np.where(generator.uniform(size=count) < 0.25, 0.0, np.abs(numbers()))
    ends = (end.astype(np.float32) for end in (low, low + width))
    lower, upper = (torch.from_numpy(end)[None] for end in ends)
    return lower, torch.maximum(lower, upper)


def node_of(name: str, shape: tuple[int, ...] = (1,)) -> Node:
    if name in set(Op):
        return Node("y", Op(name), ("x",), shape)
    attributes: dict[str, Attribute] = {"alpha": 1.0} if name == "Elu" else {}
    attributes = {"approximate": "none"} if name == "Gelu" else attributes
    return Node("y", Op.FUNCTION, ("x",), shape, {"function": name, **attributes})


def relaxed(node: Node, lower: Tensor, upper: Tensor) -> MixedRelaxation:
    made = BentRule(node).relax(Interval(lower, upper))
    assert isinstance(made, MixedRelaxation)
    return made


def within(lower: Tensor, upper: Tensor) -> Tensor:
    """Points [P, *shape], ends and what turns among them."""
    low, high = lower.double(), upper.double()
    inner = torch.lerp(low, high, torch.linspace(0, 1, 301, dtype=torch.float64).reshape(-1, 1))
    turns = torch.floor(low / (math.pi / 2)) + torch.arange(12).reshape(-1, 1)
    special = torch.cat([turns * (math.pi / 2), torch.zeros_like(low)[None]])
    return torch.cat([inner, special.clamp(-1e6, 1e6)]).clamp(low, high)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_line_of_any_parameter_holds_at_every_point(name: str, dtype: torch.dtype) -> None:
    lower, upper = (end.to(dtype) for end in intervals(1500, seed=1))
    if name in POSITIVE:
        lower, upper = lower.abs() + 1e-6, lower.abs() + 1e-6 + (upper - lower)
    relaxation = relaxed(node_of(name, lower.shape[1:]), lower, upper)
    generator = torch.Generator().manual_seed(0)
    x = within(lower[0], upper[0])
    value = apply(node_of(name), {}, x)
    for side in (1.0, -1.0):
        t = torch.rand((40, *lower.shape), generator=generator).to(dtype)
        t[0], t[1] = 0, 1
        A = torch.full_like(t, side)
        for row in range(len(t)):
            slope, _ = relaxation.backward(A[row : row + 1], t[row : row + 1])
            offset = offsets(relaxation, A[row : row + 1], t[row : row + 1])
            line = slope[0, 0].double() * x + offset
            size = 1 + value.abs() + (slope[0, 0].double() * x).abs() + offset.abs()
            holds = (line <= side * value + TOLERANCE * size) | ~value.isfinite()
            holds |= ~offset.isfinite()
            assert bool(holds.all()), (name, side, (~holds).nonzero()[0].tolist())


def offsets(relaxation: MixedRelaxation, A: Tensor, t: Tensor) -> Tensor:
    """Of every neuron [n] alone, in float64."""
    return (A * relaxation.lines(A, t)[1])[0, 0].double()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plane_of_any_parameter_holds_at_the_corners_of_a_product(dtype: torch.dtype) -> None:
    (x, x_last), (y, y_last) = intervals(1500, seed=2), intervals(1500, seed=3)
    lower, upper = torch.stack([x, y], 1).to(dtype), torch.stack([x_last, y_last], 1).to(dtype)
    relaxation = relaxed(node_of("product", (1500,)), lower, upper)
    generator = torch.Generator().manual_seed(0)
    for side in (1.0, -1.0):
        for _ in range(20):
            t = torch.rand((1, 1, 1500), generator=generator).to(dtype)
            A = torch.full_like(t, side)
            p, q = relaxation.backward(A, t)[0][0, 0].double().unbind(0)
            offset = offsets(relaxation, A, t)
            for first in (lower, upper):
                for second in (lower, upper):
                    a, b = first[0, 0].double(), second[0, 1].double()
                    size = (a * b).abs() + (p * a).abs() + (q * b).abs()
                    holds = p * a + q * b + offset <= side * a * b + 1e-15 * size
                    assert bool((holds | ~offset.isfinite() | ~size.isfinite()).all())


@pytest.mark.parametrize("name", [*NAMES, "product"])
def test_its_gradient_is_that_of_the_bound(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = (2, 5) if name == "product" else (5,)
    lower = torch.rand((3, *inputs), generator=generator).double() * 2 + 0.1
    lower = lower if name in POSITIVE else lower - 2
    upper = lower + 0.3 + torch.rand(lower.shape, generator=generator).double()
    relaxation = relaxed(node_of(name, (5,)), lower, upper)
    A = torch.randn((2, 3, 5), generator=generator).double().requires_grad_()
    t = (0.05 + 0.1 * torch.rand((2, 3, 5), generator=generator).double()).requires_grad_()
    assert torch.autograd.gradcheck(relaxation.backward, (A, t), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("sigmoid", -2.0, 5.0), ("tanh", -4.0, 1.0), ("exp", -2.0, 2.0), ("sin", -1.0, 4.0),
     ("square", -1.0, 3.0), ("cos", 0.0, 6.0)],
)  # fmt: skip
def test_at_every_point_some_parameter_is_near_the_best_line(
    name: str, low: float, high: float
) -> None:
    node = node_of(name)
    lower, upper = torch.tensor([[low]]).double(), torch.tensor([[high]]).double()
    t = torch.linspace(0, 1, 201, dtype=torch.float64).reshape(-1, 1, 1)
    x = torch.linspace(low, high, 401, dtype=torch.float64)
    y = apply(node, {}, x)
    height = float(y.max() - y.min())
    relaxation = relaxed(node, lower, upper)
    for side in (1.0, -1.0):
        slope, offset = relaxation.backward(torch.full_like(t, side), t)
        found = (slope.flatten()[:, None] * x + offset).amax(0)
        steep = (y[None] - y[:, None]) / (x[None] - x[:, None])
        for index in range(20, 400, 20):
            left, right = slice(0, index), slice(index, None)
            chords = side * (y[left, None] + steep[left, right] * (x[index] - x[left, None]))
            hull = min(float(chords.min()), side * float(y[index]))
            assert hull - float(found[index]) <= 0.03 * height, (side, float(x[index]))


def test_a_product_has_the_planes_of_mccormick() -> None:
    lower, upper = torch.tensor([[[-1.0], [2.0]]]), torch.tensor([[[3.0], [5.0]]])
    made = bundle(node_of("product"), lower, upper)
    np.testing.assert_allclose(made.slopes[:, 0, :, 0], [[2, -1], [5, -1]])
    np.testing.assert_allclose(made.offsets[:, 0, 0], [2, 5], rtol=1e-4)


def test_without_parameters_the_lines_are_the_plain_ones() -> None:
    lower, upper = torch.tensor([[-2.0, 0.5]]), torch.tensor([[1.0, 0.7]])
    relaxation = relaxed(node_of("tanh", (2,)), lower, upper)
    A = torch.tensor([[[1.0, -2.0]]])
    for found, plain in zip(relaxation.backward(A), relaxation.plain.backward(A), strict=True):
        assert torch.equal(found, plain)
