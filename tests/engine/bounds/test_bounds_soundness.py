"""Every value that an attack or a sample finds lies within the bounds, of any network and box."""

from __future__ import annotations

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import (
    Builder,
    SmallNetwork,
    box_of,
    boxes,
    cnn,
    networks,
    specs_of,
)
from sound_bounds import assert_sound, bounded

from runner.contract.vocabulary import BOUNDS, Method
from runner.engine.bounds.interval import Interval
from runner.engine.network.graph import Op

DTYPES = [torch.float32, torch.float64]


@pytest.mark.slow
@examples(80)
@given(st.data(), networks(), st.sampled_from(DTYPES))
def test_bounds_of_any_network_contain_every_value(
    data: st.DataObject, network: SmallNetwork, dtype: torch.dtype
) -> None:
    box = data.draw(boxes(network.graph.input.shape))
    assert_sound(network, box, dtype)


def after(op: Op, builder: Builder) -> str:
    """One node of an operator on the builder's input, an image of 2 channels of 5 x 4."""
    match op:
        case Op.LINEAR:
            return builder.linear(builder.flatten("x"), 6)
        case Op.CONV:
            return builder.conv("x", 3)
        case Op.ADD | Op.SUB:
            return builder.pointwise(op, builder.conv("x", 2, (1, 1)), "x")
        case Op.AFFINE:
            return builder.affine("x", 2, 1, 1)
        case Op.RESHAPE:
            return builder.reshape("x", 4, 10)
        case Op.CONCAT:
            return builder.concat(1, "x", builder.conv("x", 2, (1, 1)))
        case Op.PRODUCT:
            return builder.add(op, ("x",), builder.shape("x")[1:])
        case Op.MATMUL:
            halves = (builder.reshape(builder.conv("x", 2, (1, 1)), 4, 2, 5) for _ in range(2))
            first, second = halves
            return builder.matmul(first, builder.reshape(second, 4, 5, 2))
        case Op.EXP_SUMS:
            return builder.exp_sums("x", 5)
        case Op.SQRT | Op.RECIPROCAL:
            return builder.pointwise(op, builder.pointwise(Op.EXP, "x"))
        case Op.FUNCTION:
            return builder.add(op, ("x",), builder.shape("x"), {"function": "Mish"})
        case Op.SELECT:
            return builder.shuffled("x", 3, 4, 2)
        case Op.MAXPOOL | Op.AVGPOOL:
            return builder.pool(op, "x", (2, 2), (2, 2), (0, 0))
    return builder.pointwise(op, "x")


@pytest.mark.parametrize("op", [op for op in Op if op is not Op.INPUT])
def test_every_operator_before_a_relu(op: Op) -> None:
    builder = Builder((2, 5, 4), seed=3)
    first = builder.flatten(builder.pointwise(Op.RELU, after(op, builder)))
    builder.linear(builder.pointwise(Op.RELU, builder.linear(first, 7)), 3)
    network = builder.network()
    assert_sound(network, box_of(network, 1.0, batch=2), torch.float64)


CONVOLUTIONS = {
    "strided, last rows not reached": {"stride": (2, 3)},
    "padded": {"padding": (1, 2)},
    "padded further than the kernel": {"kernel": (1, 2), "padding": (2, 2), "stride": (3, 2)},
    "dilated": {"dilation": (2, 1), "kernel": (2, 3)},
    "dilated, strided, padded": {"dilation": (2, 2), "stride": (2, 2), "padding": (2, 1)},
    "grouped": {"groups": 2},
    "grouped, strided, padded": {"groups": 2, "stride": (2, 2), "padding": (1, 1)},
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_every_convolution(options: dict[str, object]) -> None:
    builder = Builder((2, 6, 7), seed=4)
    first = builder.pointwise(Op.RELU, builder.conv("x", 4, **options))  # type: ignore[arg-type]
    second = builder.pointwise(Op.TANH, builder.conv(first, 2, (1, 1)))
    builder.linear(builder.flatten(second), 3)
    network = builder.network()
    assert_sound(network, box_of(network, 0.5, batch=2), torch.float64)


@pytest.mark.parametrize("op", [Op.MAXPOOL, Op.AVGPOOL])
@pytest.mark.parametrize(
    ("stride", "padding"), [((2, 2), (1, 0)), ((1, 3), (1, 1)), ((3, 2), (0, 1))]
)
def test_every_pooling(op: Op, stride: tuple[int, int], padding: tuple[int, int]) -> None:
    """Overlapping, padded, and with inputs that no window reaches; twice, and across a ReLU."""
    builder = Builder((2, 8, 7), seed=5)
    first = builder.pool(op, builder.conv("x", 2), (3, 2), stride, padding)
    second = builder.pool(op, builder.pointwise(Op.RELU, first), (2, 2), (1, 1), (1, 1))
    builder.linear(builder.flatten(second), 3)
    network = builder.network()
    assert_sound(network, box_of(network, 0.5, batch=2), torch.float64)


def test_a_value_that_is_used_twice_by_one_node_counts_twice() -> None:
    builder = Builder((3,), seed=6)
    x = builder.pointwise(Op.RELU, builder.linear("x", 4))
    x = builder.pointwise(Op.RELU, builder.pointwise(Op.ADD, x, x))
    builder.linear(builder.concat(0, x, x), 3)
    network = builder.network()
    assert_sound(network, box_of(network, 1.0, batch=2), torch.float64)


def test_a_relu_or_a_sigmoid_on_the_input_itself_and_on_one_another() -> None:
    builder = Builder((4,), seed=7)
    both = builder.pointwise(
        Op.ADD, builder.pointwise(Op.RELU, "x"), builder.pointwise(Op.TANH, "x")
    )
    x = builder.pointwise(Op.RELU, builder.pointwise(Op.SIGMOID, builder.pointwise(Op.RELU, both)))
    network = builder.network(builder.linear(x, 3))
    assert_sound(network, box_of(network, 2.0, batch=2), torch.float64)


@pytest.mark.parametrize("method", BOUNDS)
def test_a_network_without_an_activation_is_bounded_exactly(method: Method) -> None:
    builder = Builder((4,), seed=8)
    network = builder.network(builder.linear(builder.linear("x", 3), 3))
    box = box_of(network, 1.0).to(torch.float64)
    specs = specs_of(network, 2).double()
    _, found = bounded(network, box, specs, method)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 4)
    corners = box.centre + signs * box.radius
    exact = (network.outputs(corners) @ specs.T).amin(0)
    assert (found[:, 0] <= exact + 1e-9).all()
    if method is not Method.IBP:
        torch.testing.assert_close(found[:, 0], exact)


@pytest.mark.parametrize("method", [Method.CROWN, Method.ALPHA_CROWN])
def test_a_relu_whose_input_ends_at_zero_is_exact(method: Method) -> None:
    """Over [-1, 0] it is 0, over [0, 1] its input, over [0, 0] both; seen in x - relu(x)."""
    builder = Builder((3,))
    network = builder.network(builder.pointwise(Op.SUB, "x", builder.pointwise(Op.RELU, "x")))
    box = Interval(torch.tensor([[-1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    _, found = bounded(network, box, torch.cat((torch.eye(3), -torch.eye(3))), method)
    exact = torch.tensor([-1.0, 0, 0, 0, 0, 0])
    assert (found[:, 0] <= exact).all()
    torch.testing.assert_close(found[:, 0], exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", [Method.CROWN, Method.ALPHA_CROWN])
def test_a_box_that_is_a_point_is_bounded_by_its_value(method: Method) -> None:
    network = cnn()
    box = box_of(network, 0.0, batch=2).to(torch.float64)
    specs = specs_of(network, 2).double()
    _, found = bounded(network, box, specs, method)
    torch.testing.assert_close(found, specs @ network.outputs(box.lower).T)
