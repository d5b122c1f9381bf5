"""Passes go on in float64 next to the input where float32's rounding would cost much there."""

from __future__ import annotations

import pytest
import torch
from small_networks import Builder, SmallNetwork, points_in

from runner.contract.vocabulary import Method
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.precision import COARSE_SHARE, rounding_share
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op


def near_one(network: SmallNetwork, radius: float) -> Interval:
    """Values that are large beside how far they vary."""
    centre = torch.ones(1, *network.graph.input.shape)
    return Interval(centre - radius, centre + radius)


def chain(inputs: int = 200, widths: tuple[int, ...] = (200, 200, 200, 200)) -> SmallNetwork:
    """Of few values that all depend on many inputs; biases keep neurons near their kinks."""
    builder = Builder((inputs,), seed=5)
    x = "x"
    ones = torch.ones(1, inputs)
    for width in widths:
        weight = builder.random(width, builder.shape(x)[0]) / builder.shape(x)[0] ** 0.5
        bias = -(ones @ weight.T)[0] if x == "x" else builder.random(width) / 10
        x = builder.linear_of(x, weight, bias)
        x = builder.pointwise(Op.RELU, x)
    weight = builder.random(30_000 // widths[-1], widths[-1])
    return builder.network(builder.linear_of(x, weight, torch.zeros(len(weight))))


def bounded(network: SmallNetwork, box: Interval) -> NetworkBounds:
    propagator = Propagator(network.bound(), Settings(Method.CROWN, forward_share=0.0))
    return propagator.bound(box, None, box.to(torch.float64))


def last_start(network: SmallNetwork) -> str:
    return [node.inputs[0] for node in network.graph.nodes if node.op is Op.RELU][-1]


def test_bounds_stay_in_float32_where_its_rounding_costs_little() -> None:
    network = chain()
    found = bounded(network, near_one(network, 1.0))
    assert (found.dtype, found.fine) == (torch.float32, frozenset())


def test_only_the_nodes_next_to_the_input_are_passed_in_float64_where_that_is_enough() -> None:
    network = chain()
    box = near_one(network, 3e-4)
    found = bounded(network, box)
    assert found.dtype is torch.float32
    assert "x" in found.fine
    assert last_start(network) not in found.fine
    exactly = Propagator(network.bound(), Settings(Method.CROWN, forward_share=0.0)).bound(
        box.to(torch.float64)
    )
    name = last_start(network)
    width, least = (
        float((bounds.intervals[name].upper - bounds.intervals[name].lower).sum())
        for bounds in (found, exactly)
    )
    assert width == pytest.approx(least, rel=0.1)
    coarse = NetworkBounds(found.box, found.intervals, found.relaxations)
    arguments = network.bound(), name, found.intervals[name]
    assert rounding_share(*arguments, coarse, NoTagger()) > COARSE_SHARE
    assert rounding_share(*arguments, found, NoTagger()) <= COARSE_SHARE


@pytest.mark.parametrize("radius", [1e-2, 1e-3, 3e-4, 1e-5])
def test_bounds_of_mixed_precision_hold(radius: float) -> None:
    """Values in float64, whose own rounding is far below what float32 loses here."""
    network = chain()
    box = near_one(network, radius)
    found = bounded(network, box)
    values = network.values(points_in(box.to(torch.float64), 200).flatten(0, 1))
    for name, interval in found.intervals.items():
        room = 1e-11 * (1 + values[name].abs())
        assert (interval.lower <= values[name] + room).all(), name
        assert (interval.upper >= values[name] - room).all(), name


def test_where_that_is_not_enough_all_is_in_float64() -> None:
    network = chain()
    assert bounded(network, near_one(network, 1e-5)).dtype is torch.float64


def test_what_float32_rounds_is_charged_before_float64_goes_on() -> None:
    """A sum of a product and what was multiplied by a slope: the slope's rounding is charged by
    the product that comes next, so nothing that it comes to by another way may be in float64.
    """
    builder = Builder((300,), seed=6)
    x = builder.linear("x", 100)
    x = builder.pointwise(Op.RELU, x)
    for _ in range(3):
        inner = builder.pointwise(Op.RELU, builder.linear(x, 100))
        x = builder.pointwise(Op.RELU, builder.pointwise(Op.ADD, builder.linear(inner, 100), x))
    network = builder.network(builder.linear(x, 400))
    users: dict[str, list[Op]] = {}
    for radius in (1e-1, 1e-2, 1e-3):
        fine = bounded(network, near_one(network, radius)).fine
        for node in network.graph.nodes:
            for name in node.inputs:
                if name in fine and node.name not in fine:
                    users.setdefault(name, []).append(node.op)
    assert {op for ops in users.values() for op in ops} <= {Op.LINEAR}
