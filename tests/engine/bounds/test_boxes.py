"""CROWN of many boxes with their own rows says what the Propagator says of each box alone."""

from __future__ import annotations

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import SmallNetwork, boxes, cnn, lattice, mlp, networks, points_in, specs_of
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds import boxes as of_boxes
from runner.engine.bounds.boxes import BoxPropagator, RowBounds
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
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


def squares(count: int, radius: float) -> Interval:
    """Boxes of two inputs."""
    centre = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return Interval(centre - radius, centre + radius)


def by(
    network: SmallNetwork, box: Interval, forms_alone: float, budget: Budget = CORE
) -> tuple[dict[str, Interval], int]:
    """Bounds of all nodes with rows up to so many a column, and the work of those rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_boxes, "FORMS_ALONE", forms_alone)
        propagator = BoxPropagator(network.bound(), NoTagger(), budget=budget)
        return propagator.bound(box, {}).intervals, propagator.work


NEVER, ALWAYS = float("inf"), 0


@examples(60)
@given(st.data())
def test_no_point_is_outside_of_bounds_by_forms(data: st.DataObject) -> None:
    """In batches of boxes that differ in which inputs are free, and of which some have none."""
    network = data.draw(networks())
    box = data.draw(boxes(network.graph.input.shape))
    free = torch.rand(box.lower.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    free[0] = False
    box = Interval(box.lower, torch.where(free, box.upper, box.lower))
    intervals, _ = by(network, box, ALWAYS)
    plain = {network.graph.input.name: box}
    bound = network.bound()
    for node in network.graph.nodes[1:]:
        before = [plain[name] for name in node.inputs]
        plain[node.name] = bound.rule(node.name).interval(*before)
        # Rounding charges follow the bounds, whose last digits differ.
        room = 1e-5 * (1 + plain[node.name].size)
        assert (intervals[node.name].lower >= plain[node.name].lower - room).all()
        assert (intervals[node.name].upper <= plain[node.name].upper + room).all()
    for x in points_in(box.to(torch.float64), 16):
        for name, value in network.values(x).items():
            found = intervals[name]
            slack = 1e-12 * (1 + float(value.abs().max()))
            assert (value >= found.lower - slack).all(), name
            assert (value <= found.upper + slack).all(), name


def test_forms_alone_are_made_while_many_neurons_are_open() -> None:
    network, box = lattice(256), squares(5, 0.5)
    output = network.graph.output
    by_rows, work_of_rows = by(network, box, NEVER)
    found, work = by(network, box, of_boxes.FORMS_ALONE)
    assert 0 < work < work_of_rows / 3
    width = {
        kind: float((intervals[output].upper - intervals[output].lower).sum())
        for kind, intervals in (("rows", by_rows), ("forms", found))
    }
    assert width["rows"] < width["forms"] < 2 * width["rows"]
    small, _ = by(network, squares(5, 0.001), of_boxes.FORMS_ALONE)
    same, _ = by(network, squares(5, 0.001), NEVER)
    assert all(small[name].lower.equal(same[name].lower) for name in same)


def test_forms_stay_within_the_budget() -> None:
    network, box = lattice(128), squares(5, 0.2)
    columns = 3 * 2 * 5 * 4 * max(node.size for node in network.graph.nodes)
    enough, scant = Budget(columns), Budget(columns - 1)
    _, work = by(network, box, ALWAYS, enough)
    assert work == 0
    _, work = by(network, box, ALWAYS, scant)
    assert work > 0


def test_a_deadline_ends_a_pass_of_forms() -> None:
    class Over(Exception):
        pass

    def over() -> None:
        raise Over

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_boxes, "FORMS_ALONE", ALWAYS)
        propagator = BoxPropagator(lattice(128).bound(), NoTagger(), over)
        with pytest.raises(Over):
            propagator.bound(squares(5, 0.2), {})
