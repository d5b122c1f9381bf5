"""Relaxations and intervals hold for every point between the bounds, however odd the bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from runner.engine.bounds.relaxation import interval, relax
from runner.engine.network.evaluate import apply
from runner.engine.network.graph import Node, Op

DTYPES = [torch.float32, torch.float64]
S_SHAPES = [Op.SIGMOID, Op.TANH]
# Bounds and sums are in floating point: a few roundings of their terms are allowed.
ROUNDINGS = 16


def pointwise(op: Op, size: int) -> Node:
    return Node("f", op, ("x",), (size,))


def maxpool(kernel: int, stride: int, padding: int, size: tuple[int, int]) -> Node:
    height, width = ((length + 2 * padding - kernel) // stride + 1 for length in size)
    attributes = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 2}
    return Node("f", Op.MAXPOOL, ("x",), (2, height, width), attributes)


def margin(node: Node, A: Tensor, A_in: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """A · f(x) minus its lower bound, [S, B], relative to the size of its terms; in float64."""
    A, A_in, bias, x = A.double(), A_in.double(), bias.double(), x.double()
    actual, linear = (A * apply(node, {}, x)).flatten(2), (A_in * x).flatten(2)
    scale = 1 + actual.abs().sum(2) + linear.abs().sum(2) + bias.abs()
    return (actual.sum(2) - linear.sum(2) - bias) / scale


def assert_sound(node: Node, lower: Tensor, upper: Tensor, A: Tensor) -> None:
    """By sampling corners, edges and inside, then by descent on the margin from the worst."""
    tolerance = ROUNDINGS * torch.finfo(lower.dtype).eps
    A_in, bias = relax(node, lower, upper).backward(A)
    assert A_in.shape == (*A.shape[:2], *lower.shape[1:])
    assert bias.shape == A.shape[:2]
    assert A_in.isfinite().all()
    assert bias.isfinite().all()
    low, high = interval(node, lower, upper)
    generator = torch.Generator().manual_seed(0)
    worst = lower
    smallest = torch.tensor(torch.inf, dtype=torch.float64)
    for step in range(40):
        shares = torch.rand(lower.shape, generator=generator, dtype=torch.float64)
        shares = (shares.round(), shares, shares**8, 1 - shares**8)[step % 4]
        x = (lower + shares * (upper.double() - lower)).clamp(lower, upper).to(lower.dtype)
        y = apply(node, {}, x)
        assert (y >= low - tolerance).all()
        assert (y <= high + tolerance).all()
        value = margin(node, A, A_in, bias, x).min()
        if value < smallest:
            smallest, worst = value, x
    assert smallest >= -tolerance
    assert attacked(node, A, A_in, bias, worst, lower, upper) >= -tolerance


def attacked(
    node: Node, A: Tensor, A_in: Tensor, bias: Tensor, x: Tensor, lower: Tensor, upper: Tensor
) -> Tensor:
    """The smallest margin that projected signed gradients find from x."""
    smallest = margin(node, A, A_in, bias, x).min()
    width = upper.double() - lower
    x = x.double()
    for step in range(20):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(margin(node, A, A_in, bias, x).sum(), x)
        moved = x.detach() - width * 0.5 ** (1 + step / 2) * gradient.sign()
        x = moved.clamp(lower.double(), upper.double())
        smallest = torch.minimum(smallest, margin(node, A, A_in, bias, x).min())
    return smallest


def random_A(node: Node, batch: int, dtype: torch.dtype) -> Tensor:
    A = torch.randn(5, batch, *node.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    A[0], A[1], A[2] = 1, -1, 0
    return A


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", S_SHAPES)
@pytest.mark.parametrize("width", [0.0, 1e-30, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e6])
def test_s_shapes_are_sound_over_intervals_of_every_width(
    op: Op, width: float, dtype: torch.dtype
) -> None:
    centers = torch.cat([torch.linspace(-30, 30, 241), torch.tensor([-1e6, -600, 499.9, 600, 1e6])])
    lower = (centers.double() - width / 2).to(dtype)[None]
    upper = torch.maximum((centers.double() + width / 2).to(dtype)[None], lower)
    node = pointwise(op, centers.numel())
    assert_sound(node, lower, upper, random_A(node, 1, dtype))
    # A row per neuron: no violation hides in a sum.
    assert_sound(node, lower, upper, torch.eye(centers.numel(), dtype=dtype)[:, None])
    assert_sound(node, lower, upper, -torch.eye(centers.numel(), dtype=dtype)[:, None])


reals = st.floats(-1e4, 1e4, width=32)


@examples(60)
@given(st.sampled_from(S_SHAPES), st.sampled_from(DTYPES), st.lists(reals, min_size=2, max_size=9))
def test_s_shapes_are_sound_between_any_numbers(
    op: Op, dtype: torch.dtype, values: list[float]
) -> None:
    ends = torch.tensor(list(pairwise(values)), dtype=dtype)
    lower, upper = ends.amin(1)[None], ends.amax(1)[None]
    node = pointwise(op, len(ends))
    assert_sound(node, lower, upper, random_A(node, 1, dtype))


@pytest.mark.parametrize("op", S_SHAPES)
def test_infinite_bounds_give_the_range_of_the_function(op: Op) -> None:
    node = pointwise(op, 1)
    infinite = torch.full((1, 1), torch.inf)
    A_in, bias = relax(node, -infinite, infinite).backward(torch.tensor([[[1.0]], [[-1.0]]]))
    assert A_in.flatten().tolist() == [0, 0]
    exact = torch.tensor([0.0, -1.0] if op is Op.SIGMOID else [-1.0, -1.0])
    assert (bias.flatten() <= exact).all()
    torch.testing.assert_close(bias.flatten(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("op", S_SHAPES)
def test_s_shapes_are_as_tight_as_tangent_and_chord(op: Op) -> None:
    """On one side of 0 the chord is exact at both ends, the tangent in the middle."""
    node, lower, upper = pointwise(op, 1), torch.tensor([[1.0]]), torch.tensor([[2.0]])
    A = torch.tensor([[[1.0]], [[-1.0]]])
    A_in, bias = relax(node, lower, upper).backward(A)
    for x, row in ((lower, 0), (upper, 0), ((lower + upper) / 2, 1)):
        gap = margin(node, A, A_in, bias, x)[row]
        assert abs(gap.item()) < 1e-6


WINDOWS = [(2, 2, 0), (3, 2, 0), (3, 2, 1), (2, 1, 0), (2, 3, 0), (1, 1, 0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("width", [0.0, 1e-6, 0.3, 2.0, 1e6])
def test_max_pool_is_sound_for_every_window(
    window: tuple[int, int, int], width: float, dtype: torch.dtype
) -> None:
    size = (7, 6)
    node = maxpool(*window, size)
    generator = torch.Generator().manual_seed(2)
    lower = torch.randn(3, 2, *size, generator=generator, dtype=dtype)
    upper = lower + width * torch.rand(3, 2, *size, generator=generator, dtype=dtype)
    assert_sound(node, lower, upper, random_A(node, 3, dtype))


def test_max_pool_is_exact_where_one_input_is_always_the_largest() -> None:
    node = maxpool(2, 2, 0, (2, 2))
    lower = torch.tensor([[0.0, 0.0], [0.0, 5.0]]).expand(1, 2, 2, 2)
    A = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1, 1).expand(2, 1, 2, 1, 1)
    A_in, bias = relax(node, lower, lower + 4).backward(A)
    assert (bias <= 0).all()
    torch.testing.assert_close(bias, torch.zeros_like(bias), rtol=0, atol=1e-4)
    assert A_in[0, 0, 0].tolist() == [[0, 0], [0, 1]]
    assert A_in[1, 0, 0].tolist() == [[0, 0], [0, -1]]


def test_max_pool_with_equal_inputs_is_sound() -> None:
    node = maxpool(2, 2, 0, (4, 4))
    lower = torch.zeros(1, 2, 4, 4)
    assert_sound(node, lower, lower, random_A(node, 1, torch.float32))
    assert_sound(node, lower, lower + 1, random_A(node, 1, torch.float32))


@pytest.mark.parametrize("node", [pointwise(Op.TANH, 4), maxpool(2, 2, 0, (4, 4))])
def test_backward_is_differentiable_in_A(node: Node) -> None:
    lower = torch.zeros(1, *(node.shape if node.op is Op.TANH else (2, 4, 4)))
    A = random_A(node, 1, torch.float32).requires_grad_()
    A_in, bias = relax(node, lower - 1, lower + 1).backward(A)
    (gradient,) = torch.autograd.grad(A_in.sum() + bias.sum(), A)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_an_operator_without_relaxation_is_a_defect() -> None:
    with pytest.raises(ValueError, match="relu"):
        interval(pointwise(Op.RELU, 1), torch.zeros(1, 1), torch.ones(1, 1))
