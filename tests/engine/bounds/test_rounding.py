"""What is taken off for rounding is at least what rounding does, measured in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Builder, SmallNetwork, box_of, points_in
from torch import Tensor

from runner.contract.vocabulary import BOUNDS, Method
from runner.engine.bounds import rounding
from runner.engine.bounds.affine import affine_map
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.rules import AffineRule
from runner.engine.layout.group import Group
from runner.engine.network.graph import Op

floats = st.floats(-(2.0**100), 2.0**100, width=32)


def cancelling(network: SmallNetwork, seed: int, exponent: int) -> SmallNetwork:
    """Weights of very different sizes, and a bias that cancels what one point gives."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.tensors.items():
        if name.endswith("weight"):
            size = 10.0 ** torch.randint(0, exponent + 1, tensor.shape, generator=generator)
            tensor.mul_(size)
    return network


@pytest.mark.parametrize("shape", [(3, 5), (64, 300), (700, 40)])
@pytest.mark.parametrize("exponent", [0, 4, 8])
def test_a_charge_covers_the_rounding_of_a_product(shape: tuple[int, int], exponent: int) -> None:
    outputs, inputs = shape
    builder = Builder((inputs,), seed=outputs)
    network = cancelling(builder.network(builder.linear("x", outputs)), 1, exponent)
    node = network.graph.nodes[1]
    affine = affine_map(node, (inputs,), network.weights(Group()))
    rows = torch.randn(20, outputs, generator=torch.Generator().manual_seed(2))
    exact = rows.double() @ network.tensors[node.parameters["weight"]].double()
    size = torch.rand(1, inputs) * 10
    interval = AffineRule(affine).interval(Interval(-size, size))
    assert interval.sums is not None
    charge = rounding.charged(rows[:, None], interval.sums, affine.terms.backward)[:, 0]
    lost = ((affine.transpose(rows).double() - exact).abs() * size.double()).sum(1)
    assert (lost <= charge.double()).all()
    assert (charge > 0).all()


@pytest.mark.parametrize("method", BOUNDS)
def test_what_parameters_are_off_by_counts_in_a_higher_precision_too(method: Method) -> None:
    """A batch normalisation's scale is computed, and rounded, when the network is read."""
    builder = Builder((4,))
    x = builder.linear("x", 6)
    scale = builder.random(6)
    off = 0.01 * scale.abs()
    x = builder.add(Op.AFFINE, (x,), (6,), scale=scale, shift=builder.random(6), scale_error=off)
    network = builder.network(builder.linear(builder.pointwise(Op.RELU, x), 3))
    box, specs = box_of(network, 0.3), torch.eye(3, dtype=torch.float64)
    propagator = Propagator(network.bound(), Settings(method))
    proved = propagator.spec_bounds(propagator.bound(box), specs)[:, 0]
    (name,) = (name for name in network.tensors if torch.equal(network.tensors[name], scale))
    for sign in (-1, 1):
        network.tensors[name].copy_(scale + sign * off)
        assert (network.outputs(points_in(box, 500)).double() >= proved).all()
        network.tensors[name].copy_(scale)


def test_a_sum_loses_what_two_roundings_lose_however_long_it_is() -> None:
    """As BatchNorm's shifts and offsets of ReLU lines: in float32, the ones would be lost."""
    products = torch.ones(2, 8192)
    products[:, 0], products[:, -1] = 1e8, -1e8
    allowed = products.abs().double().sum(1) * rounding.gamma(
        rounding.summands(8192, torch.float32), torch.float32
    )
    assert ((rounding.summed(products).double() - 8190).abs() <= allowed).all()
    one_by_one = np.cumsum(products[0].numpy(), dtype=np.float32)[-1]
    assert abs(float(one_by_one) - 8190) > float(allowed[0]), "the numbers are no test"


CONVOLUTIONS = [
    {"outputs": 8, "kernel": (3, 3), "padding": (1, 1)},
    {"outputs": 40, "kernel": (3, 3), "padding": (1, 1)},
    {"outputs": 16, "kernel": (5, 5), "padding": (2, 2)},
    {"outputs": 16, "kernel": (4, 4), "stride": (2, 2), "padding": (1, 1)},
    {"outputs": 32, "kernel": (1, 1)},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("rows", [1, 40])
def test_convolutions_are_plain_sums_of_products(options: dict[str, object], rows: int) -> None:
    """Winograd's and FFT's err by the largest of all products, not by what each entry sums."""
    rounding.plain_products()
    builder = Builder((16, 12, 12), seed=3)
    network = builder.network(builder.conv("x", **options))  # type: ignore[arg-type]
    node = network.graph.nodes[1]
    affine = affine_map(node, (16, 12, 12), network.weights(Group()))
    generator = torch.Generator().manual_seed(4)
    for apply, shape in ((affine.apply, (16, 12, 12)), (affine.transpose, node.shape)):
        x = torch.randn(rows, *shape, generator=generator)
        # Large values in one half, so that an error of their size would show in the other.
        x[..., : x.shape[-1] // 3] *= 1e6
        error = (apply(x).double() - apply(x.double())).abs()
        weights = SmallNetwork(
            network.graph, {name: tensor.abs() for name, tensor in network.tensors.items()}
        )
        whole = affine_map(node, (16, 12, 12), weights.weights(Group()))
        sums = (whole.apply if shape == (16, 12, 12) else whole.transpose)(x.double().abs())
        terms = affine.terms.forward if shape == (16, 12, 12) else affine.terms.product
        allowed = sums * rounding.gamma(terms, torch.float32)
        assert (error <= allowed + rounding.smallest(torch.float32)).all()


@pytest.mark.parametrize(
    "options",
    [
        *CONVOLUTIONS,
        {"outputs": 8, "kernel": (3, 4), "stride": (2, 3)},
        {"outputs": 8, "kernel": (3, 3), "stride": (2, 2), "dilation": (2, 3)},
        {"outputs": 8, "kernel": (2, 2), "stride": (3, 3)},
        {"outputs": 8, "kernel": (3, 3), "stride": (2, 1), "groups": 4},
    ],
    ids=str,
)
def test_no_more_products_meet_at_an_input_than_are_counted(options: dict[str, object]) -> None:
    builder = Builder((16, 13, 13), seed=3)
    network = builder.network(builder.conv("x", **options))  # type: ignore[arg-type]
    ones = {name: torch.ones_like(tensor) for name, tensor in network.tensors.items()}
    node = network.graph.nodes[1]
    affine = affine_map(node, (16, 13, 13), SmallNetwork(network.graph, ones).weights(Group()))
    most = affine.transpose(torch.ones(1, *node.shape)).max()
    assert most <= affine.terms.product
    if "dilation" not in options:
        assert most == affine.terms.product


def test_an_image_meets_its_bias_in_float64() -> None:
    """4,096 values of a channel cancel but for one: float32 would lose it."""
    builder = Builder((1, 64, 64))
    network = builder.network(builder.conv("x", 1, (1, 1)))
    rule = network.bound().linear[network.graph.output]
    rows = torch.full((1, 1, 1, 64, 64), 1e8)
    rows[..., 1::2] = -1e8
    rows[..., 0, 0] += 8.0
    _, constant = rule.backward(rows)
    (bias,) = (tensor for name, tensor in network.tensors.items() if name.endswith("bias"))
    assert constant is not None
    assert float(constant) == pytest.approx(8.0 * float(bias), rel=1e-6)


@examples(300)
@given(st.tuples(floats, floats).map(sorted))
def test_a_line_above_relu_is_above_it_at_both_ends(ends: list[float]) -> None:
    lower, upper = (torch.tensor([[end]]) for end in ends)
    crossing = (lower < 0) & (upper > 0)
    stable = (lower >= 0).float()
    line = rounding.relu_line(lower, upper, crossing, stable)
    slope, offset = (Fraction(float(v)) for v in line)
    if not bool(crossing):
        assert slope == int(stable)
        assert offset == 0
        return
    for end in map(Fraction, ends):
        assert slope * end + offset >= max(end, Fraction(0))


def test_a_line_over_limits_whose_width_overflows_is_above_relu() -> None:
    lower, upper = torch.tensor([[-3e38]]), torch.tensor([[3e38]])
    crossing, stable = torch.tensor([[True]]), torch.tensor([[0.0]])
    slope, offset = rounding.relu_line(lower, upper, crossing, stable)
    assert float(slope) >= 1
    assert float(offset) >= 3e38


@examples(300)
@given(st.tuples(floats, floats).map(sorted))
def test_centre_and_radius_hold_the_whole_box(ends: list[float]) -> None:
    box = Interval(*(torch.tensor([end]) for end in ends))
    centre, radius = Fraction(box.centre.item()), Fraction(box.radius.item())
    assert centre - radius <= Fraction(ends[0])
    assert Fraction(ends[1]) <= centre + radius


def test_a_box_of_neighbouring_floats_keeps_both() -> None:
    one = np.float32(1)
    box = Interval(torch.tensor([one]), torch.tensor([np.nextafter(one, np.float32(2))]))
    assert box.centre - box.radius <= box.lower
    assert box.upper <= box.centre + box.radius


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gamma_says_nothing_where_sums_are_too_long(dtype: torch.dtype) -> None:
    assert rounding.gamma(100, dtype) > 100 * rounding.unit(dtype)
    assert rounding.gamma(2**60, dtype) == float("inf")


def test_limits_that_are_no_numbers_become_infinite() -> None:
    lower, upper = rounding.outwards(torch.tensor([torch.nan]), torch.tensor([torch.nan]))
    assert (float(lower), float(upper)) == (-np.inf, np.inf)


@pytest.mark.parametrize("exponent", [0, 3, 6])
@pytest.mark.parametrize("radius", [0.0, 1e-6, 0.3])
def test_bounds_of_cancelling_weights_hold_in_float32(exponent: int, radius: float) -> None:
    """Values in float64, whose own rounding is far below what float32 loses here."""
    builder = Builder((6,), seed=exponent)
    x = builder.pointwise(Op.RELU, builder.linear("x", 8))
    x = builder.pointwise(Op.RELU, builder.pointwise(Op.ADD, builder.linear(x, 8), x))
    network = cancelling(builder.network(builder.linear(x, 3)), 5, exponent)
    box = box_of(network, radius)
    specs = torch.eye(3)
    points = points_in(box.to(torch.float64), 64)
    outputs = network.outputs(points.flatten(0, 1)).reshape(64, 3)
    for method in BOUNDS:
        propagator = Propagator(network.bound(), Settings(method))
        found: Tensor = propagator.spec_bounds(propagator.bound(box), specs)[:, 0]
        room = 1e-12 * (1 + outputs.abs())
        assert (found.double() <= outputs + room).all()


wide = st.floats(-(2.0**120), 2.0**120, width=64)


@examples(300)
@given(st.tuples(wide, wide).map(sorted))
def test_limits_rounded_outwards_hold_and_stay_on_their_side_of_zero(ends: list[float]) -> None:
    """A neuron that is stable in float64 is so in float32: α is one of the same neurons."""
    lower, upper = (torch.tensor([end], dtype=torch.float64) for end in ends)
    low, high = rounding.outer(lower, upper, torch.float32)
    assert low.dtype is high.dtype is torch.float32
    assert low.double() <= lower
    assert upper <= high.double()
    assert bool(low < 0) == bool(lower < 0)
    assert bool(high > 0) == bool(upper > 0)
    assert float(low) >= ends[0] - abs(ends[0]) * 2**-23 - 2**-148


@pytest.mark.parametrize("terms", [1, 40, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_values_are_off_by_is_charged_once_whatever_else_is_summed(
    dtype: torch.dtype, terms: int
) -> None:
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 1, 50, generator=draws, dtype=dtype)
    off = torch.rand(1, 50, generator=draws)
    sums = rounding.sums_in(torch.zeros(1, 50), off, dtype, terms)
    charge = rounding.charged(rows, sums, terms).double()
    wanted = (rows.double().abs() * off.double()).sum(2)
    assert (charge >= wanted).all()
    assert (charge <= 1.03 * wanted).all()
