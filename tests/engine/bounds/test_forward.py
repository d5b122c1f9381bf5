"""Forms: linear bounds of every neuron from the free inputs on, and when they are asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import Builder, SmallNetwork, box_of, cnn, mlp, points_in
from sound_bounds import by_forms, counted_rows
from test_rounding import cancelling

from runner.contract.vocabulary import Method
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.form import Form
from runner.engine.bounds.forward import ForwardPass
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.network.graph import Op


def narrow(network: SmallNetwork, free: int, radius: float) -> Interval:
    """A box in which only the first inputs vary."""
    box = box_of(network, radius)
    upper = box.lower.flatten(1).clone()
    upper[:, :free] = box.upper.flatten(1)[:, :free]
    return Interval(box.lower, upper.reshape(box.lower.shape))


def widths(intervals: dict[str, Interval]) -> float:
    return float(sum((interval.upper - interval.lower).sum() for interval in intervals.values()))


def bound(network: SmallNetwork, box: Interval, share: float, **settings: object) -> NetworkBounds:
    chosen = replace(Settings(Method.CROWN, forward_share=share), **settings)  # type: ignore[arg-type]
    return Propagator(network.bound(), chosen).bound(box)


def test_a_linear_network_is_bounded_exactly_by_its_inputs_columns() -> None:
    builder = Builder((3,), seed=1)
    network = builder.network(builder.linear(builder.linear("x", 40), 2))
    box = box_of(network, 0.5).to(torch.float64)
    found = by_forms(network, box, columns=3)[network.graph.output]
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3)
    values = network.outputs(box.centre + signs * box.radius)
    torch.testing.assert_close(found.lower[0], values.amin(0))
    torch.testing.assert_close(found.upper[0], values.amax(0))


def test_inputs_that_vary_by_rounding_alone_have_no_columns() -> None:
    network = mlp(9, 12, 12, 3, seed=2)
    box = narrow(network, 2, 0.3)
    around = torch.nextafter(box.upper, torch.full_like(box.upper, torch.inf))
    forward = ForwardPass(network.bound(), Interval(box.lower, around), 0.25)
    assert forward.free == 2
    found = by_forms(network, Interval(box.lower, around), columns=forward.free)
    values = network.values(points_in(box.to(torch.float64), 200)[:, 0])
    for name, interval in found.items():
        assert (interval.lower <= values[name]).all()
        assert (values[name] <= interval.upper).all()
    alike = by_forms(network, box, columns=2)
    assert widths(found) == pytest.approx(widths(alike), rel=1e-3)


def test_more_columns_are_tighter_and_none_are_as_interval_bounds() -> None:
    network = mlp(2, 12, 12, 12, 3, seed=2)
    box = box_of(network, 0.3)
    none, inputs, many = (widths(by_forms(network, box, columns)) for columns in (0, 2, 100))
    assert many < inputs < none
    plain = Propagator(network.bound(), Settings(Method.IBP)).bound(box)
    by_interval = {n: i for n, i in plain.intervals.items() if n != "x"}
    assert none == pytest.approx(widths(by_interval), rel=0.2)


def test_only_inputs_that_vary_have_columns() -> None:
    network = mlp(50, 10, 3)
    box = narrow(network, 4, 0.2)
    form = Form.of(box).with_symbols(100, 0)
    assert form.symbols == (0, 1, 2, 3)
    assert not form.error.any()


def test_columns_that_move_little_become_errors_when_there_are_too_many() -> None:
    box = Interval(torch.tensor([[-1.0, -3.0, -2.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
    form = Form.of(box).with_symbols(3, 0)
    fewer = form.with_symbols(1, 3)
    assert len(fewer.symbols) == 1
    assert fewer.error.tolist()[0][1] < 1e-30
    assert fewer.interval.lower.tolist()[0] == pytest.approx([-1, -3, -2], rel=1e-5)


@pytest.mark.parametrize("exponent", [0, 3, 6, 9])
@pytest.mark.parametrize("radius", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize("columns", [0, 3, 100])
def test_forms_of_cancelling_weights_hold_in_float32(
    exponent: int, radius: float, columns: int
) -> None:
    """Values in float64, whose own rounding is far below what float32 loses here."""
    builder = Builder((6,), seed=exponent)
    x = builder.pointwise(Op.RELU, builder.linear("x", 8))
    x = builder.pointwise(Op.RELU, builder.pointwise(Op.ADD, builder.linear(x, 8), x))
    x = builder.pointwise(Op.SIN, builder.affine(x, 8))
    network = cancelling(builder.network(builder.linear(x, 3)), 5, exponent)
    box = box_of(network, radius)
    points = points_in(box.to(torch.float64), 64).flatten(0, 1)
    values = network.values(points)
    for name, interval in by_forms(network, box, columns).items():
        room = 1e-12 * (1 + values[name].abs())
        assert (interval.lower.double() <= values[name] + room).all(), name
        assert (interval.upper.double() >= values[name] - room).all(), name


def test_rounding_is_charged_where_columns_cancel() -> None:
    """x - x through weights of 1e8: the value is the small rest, and float32 does not see it."""
    builder = Builder((1,))
    large = torch.tensor([[1e8 + 8.0], [1e8]])
    x = builder.linear_of("x", large, torch.zeros(2))
    network = builder.network(
        builder.linear_of(x, torch.tensor([[0.1, -0.1]]), torch.tensor([0.0]))
    )
    box = Interval(torch.tensor([[1.0]]), torch.tensor([[1.1]]))
    found = by_forms(network, box, columns=5)[network.graph.output]
    exact = network.outputs(box.centre.double())
    assert found.lower.double() <= exact <= found.upper.double()
    assert float(found.upper - found.lower) > 1e-7 * 1e7  # what float32 may have lost


def rows_of(bound: BoundNetwork) -> frozenset[str]:
    return bound.start_nodes - bound.exact


def asked(network: SmallNetwork, box: Interval, budget: Budget | None = None) -> dict[str, int]:
    """Columns that pay by start node, if all of its neurons are wanted."""
    bound = network.bound()
    forward = ForwardPass(bound, box, 0.25, None, budget or Budget())
    nodes = [node for node in network.graph.nodes if node.name in rows_of(bound)]
    return {node.name: forward.columns(node.name, 2 * node.size, torch.float32) for node in nodes}


def test_forms_are_asked_for_where_inputs_are_few_against_neurons() -> None:
    network = mlp(400, 300, 300, 5)
    few, many = asked(network, narrow(network, 2, 0.1)), asked(network, box_of(network, 0.1))
    assert all(columns >= 2 for columns in few.values())
    assert set(many.values()) == {0}


def test_columns_stay_within_the_budget() -> None:
    network = mlp(40, 3000, 3000, 5)
    box = narrow(network, 8, 0.1)
    assert min(asked(network, box).values()) > 8
    (some,) = asked(network, box, Budget(4 * 3 * 3000 * 20)).values()
    assert some == 20
    assert set(asked(network, box, Budget(4 * 3 * 3000 * 7)).values()) == {0}


def test_a_pass_ends_where_its_forms_leave_most_rows() -> None:
    network = mlp(2, 300, 300, 5)
    forward = ForwardPass(network.bound(), box_of(network, 0.1), 0.25)
    (name,) = asked(network, box_of(network, 0.1))
    assert forward.columns(name, 600, torch.float32)
    forward.report(600, 590)
    assert not forward.columns(name, 600, torch.float32)


@pytest.mark.parametrize(
    ("network", "radius"), [(mlp(2, 200, 200, 200, 3, seed=3), 0.3), (cnn(seed=3, channels=8), 2.0)]
)
def test_bounds_with_forms_are_no_looser_and_take_fewer_rows(
    network: SmallNetwork, radius: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = counted_rows(monkeypatch)
    box = narrow(network, 2, radius)
    without = bound(network, box, 0.0)
    of_plain = sum(count for _, count in rows)
    rows.clear()
    found = bound(network, box, 1e9)
    assert 0 < sum(count for _, count in rows) < of_plain
    bound_network = network.bound()
    first = next(node.name for node in network.graph.nodes if node.name in rows_of(bound_network))
    one, other = found.intervals[first], without.intervals[first]
    # What a form shows to be stable needs no tighter bound; later nodes choose slopes by these.
    both = (one.lower < 0) & (one.upper > 0) & (other.lower < 0) & (other.upper > 0)
    room = 2e-3 * (other.upper - other.lower) + 1e-6
    assert both.any()
    assert (one.lower >= other.lower - room)[both].all()
    assert (one.upper <= other.upper + room)[both].all()


def test_many_boxes_are_bounded_as_each_alone() -> None:
    """What an input split asks for: boxes that differ in size and in what varies."""
    network = mlp(3, 10, 10, 2, seed=4)
    many = box_of(network, 0.3, batch=4)
    width = torch.tensor([[1.0, 1, 1], [0, 1, 0], [0.1, 0, 1], [0, 0, 0]])
    many = Interval(many.lower, many.lower + 0.6 * width)
    together = by_forms(network, many, columns=50)
    for index in range(4):
        one = Interval(many.lower[index : index + 1], many.upper[index : index + 1])
        for name, interval in by_forms(network, one, columns=50).items():
            torch.testing.assert_close(together[name].lower[index], interval.lower[0])
            torch.testing.assert_close(together[name].upper[index], interval.upper[0])
