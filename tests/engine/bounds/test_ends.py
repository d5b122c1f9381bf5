"""Rows that end at a narrow node: where that pays, and that what is found there holds."""

from __future__ import annotations

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Builder, SmallNetwork, box_of, cnn, lattice, mlp, points_in, specs_of
from test_boxes import bounded

from runner.engine.bounds import ends
from runner.engine.bounds.boxes import BoxPropagator
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.end_lines import EndLines
from runner.engine.bounds.ends import Ends, end_forms, passages
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op


def generator(seed: int, inputs: int = 3, narrow: int = 6) -> SmallNetwork:
    """Few inputs, two wide layers with a way around one of them, a narrow node, two layers more."""
    builder = Builder((inputs,), seed)
    first = builder.pointwise(Op.RELU, builder.linear("x", 24))
    wave = builder.pointwise(Op.SIN, builder.affine(first, 24))
    x = builder.pointwise(Op.ADD, wave, first)
    x = builder.linear(builder.pointwise(Op.RELU, builder.linear(x, 24)), narrow)
    for width in (8, 8):
        x = builder.pointwise(Op.RELU, builder.linear(x, width))
    builder.linear(x, 2)
    return builder.network()


def narrowest(network: SmallNetwork) -> str:
    """Of the nodes that all ways go through, before the output."""
    found = [node for node in passages(network.graph)[:-1] if node.op is Op.LINEAR]
    return min(found, key=lambda node: node.size).name


def always(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Rows from behind that node end there, whatever that costs."""

    def best(self: Ends, of: str, rows: int, intervals: object) -> object:
        graph = self._network.graph
        place = [node.name for node in graph.nodes]
        return graph.node(name) if place.index(of) > place.index(name) else None

    monkeypatch.setattr(Ends, "best", best)


def test_passages_are_what_all_ways_go_through() -> None:
    network = generator(0)
    found = [node.op for node in passages(network.graph)]
    assert Op.ADD in found
    assert Op.SIN not in found  # there is a way around it
    assert passages(network.graph)[-1].name == network.graph.output
    assert len(passages(mlp(2, 5, 3).graph)) == 3


@examples(40)
@given(st.integers(0, 2**16), st.sampled_from([0.0, 1e-5, 0.05, 0.5, 5.0]))
def test_no_point_of_a_box_is_outside_of_the_form_of_a_node(seed: int, radius: float) -> None:
    network = generator(seed)
    box, bound = box_of(network, radius, batch=3, seed=seed), network.bound()
    name = narrowest(network)
    known = BoxPropagator(bound, NoTagger()).bound(box, {}).intervals
    found = end_forms(bound, network.graph.node(name), known, Budget(4096))
    rows = torch.randn(1, 12, network.graph.node(name).size)
    of = torch.arange(3).repeat(4)
    for dtype in (torch.float32, torch.float64):
        lines = EndLines.of(bound, found, box)
        least, slopes = lines.least(rows.to(dtype), of)
        for x in points_in(box.to(torch.float64), 48, seed):
            values = network.values(x)[name].flatten(1)
            for number, form in enumerate(found.forms):
                assert (form.interval.lower <= values[number] + 1e-12).all()
                assert (form.interval.upper >= values[number] - 1e-12).all()
            reached = (rows.double()[0] * values[of]).sum(1)
            assert (least[0] <= reached + 1e-12 * (1 + reached.abs())).all()
            # The line in the input holds at each point, too.
            reach = (slopes[0].abs() * lines.radius[of]).sum(1)
            offset = (x.flatten(1) - box.to(torch.float64).centre.flatten(1))[of]
            line = least[0] + reach + (slopes[0] * offset).sum(1)
            assert (line <= reached + 1e-9 * (1 + reach + reached.abs())).all()


@examples(30)
@given(st.integers(0, 2**16))
def test_no_point_is_below_rows_that_ended_early(seed: int) -> None:
    network = generator(seed)
    box, specs = box_of(network, 0.3, batch=3, seed=seed), specs_of(network, 2, seed).double()
    with pytest.MonkeyPatch.context() as patch:
        always(patch, narrowest(network))
        found = bounded(network, box, specs)
    lower = found.lower.reshape(3, -1)
    for x in points_in(box.to(torch.float64), 32, seed):
        assert (lower <= network.outputs(x) @ specs.T + 1e-9).all()


def test_rows_that_end_early_are_about_as_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    gained, widths = 0.0, 0.0
    for seed in range(5):
        network = generator(seed)
        box, specs = box_of(network, 0.1, batch=2, seed=seed), specs_of(network, 2).double()
        whole = bounded(network, box, specs).lower
        with monkeypatch.context() as patch:
            always(patch, narrowest(network))
            ended = bounded(network, box, specs).lower
        values = torch.stack(
            [network.outputs(x) @ specs.T for x in points_in(box.to(torch.float64), 400)]
        )
        widths += float((values.amax(0) - values.amin(0)).sum())
        gained += float((ended - whole).sum())
    assert gained > -0.1 * widths


def test_errors_in_pieces_are_as_errors_at_once() -> None:
    network = generator(1)
    bound, box = network.bound(), box_of(network, 0.3)
    known = BoxPropagator(bound, NoTagger()).bound(box, {}).intervals
    node = network.graph.node(narrowest(network))
    one, many = (end_forms(bound, node, known, budget) for budget in (CORE, Budget(1)))
    torch.testing.assert_close(one.forms[0].columns, many.forms[0].columns)
    torch.testing.assert_close(one.forms[0].interval.lower, many.forms[0].interval.lower)


def test_rows_end_early_where_they_are_many_and_the_way_is_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end(network: SmallNetwork, radius: float = 0.1) -> str | None:
        bound, box = network.bound(), box_of(network, radius)
        known = BoxPropagator(bound, NoTagger()).bound(box, {}).intervals
        last = [node for node in network.graph.nodes if node.name in bound.start_nodes][-1]
        found = Ends(bound, CORE).best(last.name, 2 * last.size, known)
        return None if found is None else found.name

    builder = Builder((2,))
    x = builder.pointwise(Op.RELU, builder.linear("x", 400))
    narrow = builder.linear(builder.pointwise(Op.RELU, builder.linear(x, 400)), 4)
    wide = builder.linear(narrow, 1000)
    x = builder.pointwise(Op.RELU, wide)
    network = builder.network(builder.linear(x, 1))
    for little in (network, mlp(5, 50, 50, 50, 5), lattice(64), cnn()):
        assert end(little) is None  # so little work is done before it is asked how
    monkeypatch.setattr(ends, "LEAST_WORK", 0)
    assert end(network) == wide  # its own form does without any rows
    assert end(network, 100.0) is None  # there are as many variables as there would be rows


def test_nothing_is_known_of_what_overflows() -> None:
    builder = Builder((2,))
    x = builder.linear_of("x", 1e38 * torch.eye(2), torch.zeros(2))
    x = builder.pointwise(Op.SQUARE, builder.pointwise(Op.SQUARE, x))
    network = builder.network(builder.linear(builder.linear(x, 2), 1))
    box = Interval(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 2.0]]))
    bound = network.bound()
    known = BoxPropagator(bound, NoTagger()).bound(box, {}).intervals
    found = end_forms(bound, network.graph.node("linear_4"), known, CORE)
    least, _ = EndLines.of(bound, found, box).least(torch.ones(1, 1, 2), torch.tensor([0]))
    assert float(least) == -torch.inf
