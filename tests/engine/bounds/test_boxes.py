"""CROWN of many boxes with their own rows says what the Propagator says of each box alone."""

from __future__ import annotations

import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import SmallNetwork, boxes, cnn, mlp, networks, points_in, specs_of
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds.boxes import BoxPropagator, RowBounds
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.propagate import Propagator, Settings
from runner.engine.bounds.tagging import NoTagger


def bounded(network: SmallNetwork, box: Interval, specs: Tensor) -> RowBounds:
    """Of every spec over every box, box by box."""
    propagator = BoxPropagator(network.bound(), NoTagger())
    count = len(box.lower)
    of = torch.arange(count).repeat_interleave(len(specs))
    return propagator.rows(propagator.bound(box, {}), specs.repeat(count, 1), of)


def outward(network: SmallNetwork, box: Interval) -> float:
    """Rounding that a bound may hide."""
    values = network.values(points_in(box, 4).flatten(0, 1))
    return 1e-4 * (1 + max(float(value.abs().max()) for value in values.values()))


@examples(60)
@given(st.data())
def test_no_point_of_a_box_is_below_its_bounds(data: st.DataObject) -> None:
    network = data.draw(networks())
    box = data.draw(boxes(network.graph.input.shape))
    specs = specs_of(network, 3)
    found = bounded(network, box, specs)
    lower = found.lower.reshape(-1, len(specs))
    slack = outward(network, box)
    centre = box.centre.flatten(1)
    reach = (found.coefficients.abs() * box.radius.flatten(1).repeat_interleave(len(specs), 0)).sum(
        1
    )
    for x in points_in(box, 16):
        values = network.outputs(x) @ specs.T
        scale = slack + 1e-5 * values.abs()
        assert (lower <= values + scale).all()
        # The linear bound holds at each point, not only the least value.
        offset = (x.flatten(1) - centre).repeat_interleave(len(specs), 0)
        line = found.lower + reach + (found.coefficients * offset).sum(1)
        room = scale.reshape(-1) + 1e-4 * (1 + reach)
        assert (line <= values.reshape(-1) + room).all()


def test_each_box_has_what_it_has_alone() -> None:
    for network in (mlp(3, 16, 16, 16, 2), cnn()):
        generator = torch.Generator().manual_seed(0)
        lower = torch.randn(6, *network.graph.input.shape, generator=generator)
        box = Interval(
            lower, lower + torch.logspace(-2, 0, 6).reshape(-1, *[1] * (lower.dim() - 1))
        )
        specs = specs_of(network, 4)
        found = bounded(network, box, specs).lower.reshape(6, -1)
        for index in range(6):
            alone = Interval(box.lower[index : index + 1], box.upper[index : index + 1])
            propagator = Propagator(network.bound(), Settings(Method.CROWN))
            expected = propagator.spec_bounds(propagator.bound(alone), specs)[:, 0]
            # The Propagator also knows interval bounds of the output, and charges less.
            assert (found[index] <= expected + 1e-4).all()
            assert (found[index] - expected).abs().median() < 1e-3


def test_known_bounds_of_a_larger_box_are_kept() -> None:
    network = mlp(3, 16, 16, 2)
    propagator = BoxPropagator(network.bound(), NoTagger())
    box = Interval(-torch.ones(1, 3), torch.ones(1, 3))
    (name,) = propagator.start_nodes
    free = propagator.bound(box, {}).intervals[name]
    known = Interval(free.lower + 0.1, free.upper - 0.1)
    kept = propagator.bound(box, {name: known}).intervals[name]
    assert (kept.lower >= known.lower).all()
    assert (kept.upper <= known.upper).all()


def test_nodes_that_keep_interval_bounds() -> None:
    network = mlp(3, 16, 16, 2)
    bound = network.bound()
    (name,) = BoxPropagator(bound, NoTagger()).start_nodes
    box = Interval(-torch.ones(1, 3), torch.ones(1, 3))
    tight = BoxPropagator(bound, NoTagger()).bound(box, {}).intervals[name]
    loose = BoxPropagator(bound, NoTagger(), interval_only={name}).bound(box, {}).intervals[name]
    assert (loose.lower <= tight.lower).all()
    assert (loose.lower < tight.lower).any()
