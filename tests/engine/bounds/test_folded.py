"""Networks of the neurons that are open in a box say the same as the whole one does there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_networks import Builder, SmallNetwork, box_of, mlp, points_in

from runner.contract.vocabulary import EnginePart, Method
from runner.engine.bounds import folded as folding
from runner.engine.bounds import nested_boxes
from runner.engine.bounds.boxes import BoxPropagator
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.deep_boxes import DeepBoxes
from runner.engine.bounds.folded import folded
from runner.engine.bounds.form_network import FormNetwork
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.narrowed import count_values, narrowed
from runner.engine.bounds.nested_boxes import NestedBoxes
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op


def chain(builder: Builder) -> str:
    x = builder.reshape(builder.linear(builder.flatten("x"), 128), 2, 8, 8)
    for stride in (1, 2, 1):
        conv = builder.conv(x, 4, stride=(stride, stride), padding=(1, 1))
        x = builder.pointwise(Op.RELU, conv)
    return x


def residual(builder: Builder) -> str:
    first = builder.conv("x", 3, padding=(1, 1))
    inner = builder.conv(builder.pointwise(Op.RELU, first), 3, padding=(1, 1))
    x = builder.pointwise(Op.RELU, builder.pointwise(Op.ADD, inner, first))
    return builder.pointwise(Op.RELU, builder.conv(x, 4, padding=(1, 1)))


def pooled(builder: Builder) -> str:
    x = builder.pointwise(Op.RELU, builder.conv("x", 4, padding=(1, 1)))
    x = builder.pool(Op.AVGPOOL, x, (2, 2), (2, 2), (0, 0))
    return builder.pointwise(Op.RELU, builder.conv(x, 4, padding=(1, 1)))


def network_of(make: Callable[[Builder], str], seed: int = 3) -> SmallNetwork:
    builder = Builder((4,) if make is chain else (2, 6, 8), seed)
    x = builder.linear(builder.flatten(make(builder)), 12)
    return builder.network(builder.linear(builder.pointwise(Op.RELU, x), 3))


NETWORKS = [chain, residual, pooled]


@pytest.fixture
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it pays or not."""
    monkeypatch.setattr(folding, "WORTH", 1e9)
    monkeypatch.setattr(folding, "MOST_OPEN", 1.0)
    monkeypatch.setattr("runner.engine.bounds.crop.WORTH", 1e9)
    monkeypatch.setattr(nested_boxes, "NARROWER", 1.0)


def bounds_of(network: SmallNetwork, radius: float) -> NetworkBounds:
    return Propagator(network.bound(), Settings(Method.CROWN)).bound(box_of(network, radius))


def forms_of(network: SmallNetwork, radius: float) -> FormNetwork:
    bounds = bounds_of(network, radius)
    found = folded(network.bound(), bounds.box, bounds.intervals, CORE, NoTagger(), lambda: None)
    assert found is not None
    return found


def half(box: Interval) -> Interval:
    """A part of it."""
    return Interval(box.lower, box.lower + (box.upper - box.lower) * 0.4)


def assert_same(forms: FormNetwork, network: SmallNetwork, box: Interval) -> None:
    """Everywhere in the box, but for the errors that forms state."""
    x = points_in(box.to(torch.float64), 200).flatten(0, 1)
    values = network.values(x)
    before = x.flatten(1)
    for relu in forms.relus:
        form, wanted = forms.forms[relu.before], values[relu.before].flatten(1)[:, relu.at]
        said = before @ form.weight.double().T + form.bias.double()
        assert ((said - wanted).abs() <= form.error + 1e-13).all(), relu.before
        before = torch.cat((before, wanted.relu()), 1)
    form = forms.forms[forms.output]
    said = before @ form.weight.double().T + form.bias.double()
    assert ((said - network.outputs(x)).abs() <= form.error + 1e-13).all()
    # What is said would be worth nothing if all could be errors.
    assert all(float(form.error.max()) < 1e-4 for form in forms.forms.values())


@pytest.mark.usefixtures("_always")
@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_open_neurons_and_outputs_are_what_forms_say(make: Callable[[Builder], str]) -> None:
    network = network_of(make)
    bounds = bounds_of(network, 0.3)
    forms = forms_of(network, 0.3)
    assert_same(forms, network, bounds.box)
    for relu in forms.relus:
        interval = bounds.intervals[relu.before]
        crossing = (interval.lower < 0) & (interval.upper > 0)
        assert torch.equal(relu.at, crossing.flatten().nonzero()[:, 0])
        assert len(relu.at)
    sizes = [network.graph.node(relu.before).size for relu in forms.relus]
    assert sum(len(relu.at) for relu in forms.relus) < sum(sizes)


@pytest.mark.usefixtures("_always")
@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_less_is_open_in_a_part_of_the_box_and_forms_say_the_same(
    make: Callable[[Builder], str],
) -> None:
    network = network_of(make)
    whole = forms_of(network, 0.3)
    box = half(whole.box)
    bounds = Propagator(whole.network, Settings(Method.CROWN)).bound(box)
    part = narrowed(whole, box, bounds.intervals)
    assert_same(part, network, box)
    assert part.values == count_values(whole, bounds.intervals) < whole.values
    smaller = half(box)
    again = Propagator(part.network, Settings(Method.CROWN)).bound(smaller)
    assert_same(narrowed(part, smaller, again.intervals), network, smaller)


@pytest.mark.usefixtures("_always")
def test_where_nothing_is_open_the_outputs_are_linear() -> None:
    network = network_of(chain)
    whole = forms_of(network, 0.3)
    point = Interval(whole.box.centre - 1e-6, whole.box.centre + 1e-6)
    bounds = Propagator(whole.network, Settings(Method.CROWN)).bound(point)
    part = narrowed(whole, point, bounds.intervals)
    assert not part.relus
    assert_same(part, network, point)
    found = Propagator(part.network, Settings(Method.CROWN)).bound(point)
    outputs = network.outputs(points_in(point.to(torch.float64), 50).flatten(0, 1))
    assert (found.intervals[part.output].lower <= outputs).all()
    assert (found.intervals[part.output].upper >= outputs).all()


@pytest.mark.usefixtures("_always")
@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("boxwise", [False, True])
def test_bounds_have_room_for_all_errors_that_forms_state(
    make: Callable[[Builder], str], boxwise: bool
) -> None:
    """Whatever the neurons are within them: here they are a hundredth of everything."""
    whole = forms_of(network_of(make), 0.3)
    rough = replace(
        whole,
        forms={
            name: replace(form, error=form.error + 0.01 * (1 + form.bias.abs().double()))
            for name, form in whole.forms.items()
        },
    )
    network, box = rough.network, half(whole.box)
    if boxwise:
        bounds = BoxPropagator(network, NoTagger()).bound(box, {})
    else:
        driver = DeepBoxes(network, Settings(), None, NoTagger(), lambda: None)
        bounds = driver.bound(box, {})
    specs = torch.eye(3, dtype=torch.float64)
    margins = BoxPropagator(network, NoTagger()).same_rows(bounds, specs).lower[:, 0]
    generator = torch.Generator().manual_seed(0)
    for x in points_in(box.to(torch.float64), 60).flatten(0, 1):
        before = x.flatten()
        for name in [relu.before for relu in rough.relus] + [rough.output]:
            form = rough.forms[name]
            # All of it one way or the other: the ends are what may be forgotten.
            off = (torch.randint(0, 2, form.error.shape, generator=generator) * 2 - 1) * form.error
            value = form.weight.double() @ before + form.bias.double() + off
            interval = bounds.intervals[name]
            assert (interval.lower[0] <= value + 1e-12).all(), name
            assert (interval.upper[0] >= value - 1e-12).all(), name
            before = torch.cat((before, value.relu()))
        assert (margins <= value + 1e-12).all()


def test_what_bends_otherwise_is_not_folded() -> None:
    builder = Builder((2, 6, 6), seed=1)
    x = builder.pointwise(Op.TANH, builder.conv("x", 3, padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.conv(x, 3, padding=(1, 1)))
    network = builder.network(builder.linear(builder.flatten(x), 2))
    bounds = bounds_of(network, 0.3)
    assert made_of(network, bounds, CORE) is None


def made_of(network: SmallNetwork, bounds: NetworkBounds, budget: Budget) -> FormNetwork | None:
    return folded(network.bound(), bounds.box, bounds.intervals, budget, NoTagger(), lambda: None)


def test_forms_are_made_where_they_are_less_work_and_fit_the_memory() -> None:
    builder = Builder((4,), seed=1)
    x = builder.reshape(builder.linear("x", 2 * 16 * 16), 2, 16, 16)
    for _ in range(3):
        x = builder.pointwise(Op.RELU, builder.conv(x, 16, padding=(1, 1)))
    wide = builder.network(builder.linear(builder.flatten(x), 2))
    small = bounds_of(wide, 0.01)
    assert made_of(wide, small, CORE) is not None
    assert made_of(wide, small, Budget(1000)) is None
    dense = mlp(4, 40, 40, 40, 2)
    assert made_of(dense, bounds_of(dense, 5.0), CORE) is None


def nested(network: SmallNetwork, *without: EnginePart) -> NestedBoxes:
    settings = Settings(without=frozenset(without))
    return NestedBoxes(network.bound(), settings, None, NoTagger(), lambda: None)


@pytest.mark.usefixtures("_always")
@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_boxes_within_boxes_are_bounded_over_what_is_open_around_them(
    make: Callable[[Builder], str],
) -> None:
    network = network_of(make)
    boxes, box = nested(network), box_of(network, 0.3)
    first = boxes.bound(box, {})
    known = {name: first.intervals[name] for name in boxes.start_nodes}
    for depth in (1, 2, 3):
        boxes.enter()
        assert boxes.depth == depth
        box = half(box)
        found = boxes.bound(box, known)
        before, known = known, boxes.known(known)
        values = network.values(points_in(box.to(torch.float64), 100).flatten(0, 1))
        for name, interval in known.items():
            assert (interval.lower <= values[name] + 1e-9).all(), name
            assert (interval.upper >= values[name] - 1e-9).all(), name
            assert (interval.lower >= before[name].lower).all()
            assert (interval.upper <= before[name].upper).all()
        rows = boxes.same_rows(found, torch.eye(3, dtype=torch.float64)).lower[:, 0]
        assert (rows <= values[network.graph.output] + 1e-9).all()
        assert boxes.opened().shape == (1, box.lower[0].numel())
    # A box that reaches further has the whole network again.
    boxes.bound(box_of(network, 0.4), {})
    assert boxes.depth == 0


@pytest.mark.usefixtures("_always")
def test_forms_over_a_box_serve_all_of_its_parts() -> None:
    network = network_of(residual)
    boxes, box = nested(network), box_of(network, 0.3)
    first = boxes.bound(box, {})
    known = {name: first.intervals[name] for name in boxes.start_nodes}
    boxes.enter()
    boxes.bound(half(box), known)
    boxes.enter()
    assert boxes.depth == 2
    beside = Interval(box.upper - (box.upper - box.lower) * 0.4, box.upper)
    boxes.bound(beside, known)
    assert boxes.depth == 1
    values = network.values(points_in(beside.to(torch.float64), 100).flatten(0, 1))
    for name, interval in boxes.known(known).items():
        assert (interval.lower <= values[name] + 1e-9).all(), name
        assert (interval.upper >= values[name] - 1e-9).all(), name


@pytest.mark.usefixtures("_always")
def test_nothing_is_folded_where_it_is_left_out() -> None:
    network = network_of(chain)
    boxes = nested(network, EnginePart.FOLDED)
    boxes.bound(box_of(network, 0.3), {})
    boxes.enter()
    assert boxes.depth == 0
