"""Boxes of networks that are too large for many: each gets rows for all that is open in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from questions import bounded, case, question, region
from small_networks import Builder, SmallNetwork, mlp, points_in
from sound_bounds import counted_rows
from test_input_split import TOLERANCE, asked, context, deepest, search

from runner.contract.vocabulary import Method
from runner.engine.bounds import boxes, deep_boxes, folded, nested_boxes
from runner.engine.bounds.deep_boxes import DeepBoxes, few_boxes
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op
from runner.engine.search.cuts import Cuts
from runner.engine.search.foresight import Foresight
from runner.engine.search.input_split import InputSplit
from runner.engine.search.search import SearchEnd
from runner.problem.property.model import Property


@pytest.fixture
def _all_are_large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(deep_boxes, "TRIAL_WORK", 0)
        yield


def image(channels: int = 4, size: int = 8, seed: int = 4) -> SmallNetwork:
    """Four inputs that every place of an image depends on, and three convolutions."""
    builder = Builder((4,), seed)
    x = builder.reshape(builder.linear("x", 2 * size * size), 2, size, size)
    for stride in (1, 2, 1):
        conv = builder.conv(x, channels, stride=(stride, stride), padding=(1, 1))
        x = builder.pointwise(Op.RELU, conv)
    return builder.network(builder.linear(builder.flatten(x), 1))


def nearly_unsafe(network: SmallNetwork, radius: float, room: float) -> Property:
    inputs = network.graph.input.size
    x = (torch.rand(2000, inputs, generator=torch.Generator().manual_seed(0)) * 2 - 1) * radius
    least = float(network.outputs(x).min())
    box = [-radius] * inputs, [radius] * inputs
    return question(case(*box, region([[1]], [least - room])))


def test_a_box_is_cheap_where_so_many_are_over_in_seconds() -> None:
    """By free inputs times multiply-adds, and no more boxes than halving each input once makes."""
    assert not few_boxes(mlp(5, 50, 50, 5).bound(), 5)
    assert not few_boxes(mlp(50, 200, 200, 5).bound(), 50)
    large = image(channels=64, size=32).bound()
    assert few_boxes(large, 16)
    assert not few_boxes(large, 4)


@pytest.mark.usefixtures("_all_are_large")
@pytest.mark.parametrize("always_folded", [False, True])
def test_no_verdict_contradicts_an_exact_search(
    monkeypatch: pytest.MonkeyPatch, always_folded: bool
) -> None:
    outcomes = set()
    if always_folded:
        monkeypatch.setattr(folded, "WORTH", 1e9)
        monkeypatch.setattr(folded, "MOST_OPEN", 1.0)
        monkeypatch.setattr(nested_boxes, "NARROWER", 1.0)
    for seed in range(20):
        network, instance = asked(seed)
        exact = deepest(network, instance.cases[0])
        if abs(exact) < TOLERANCE:
            continue
        end, _, _ = search(network, instance)
        assert end is (SearchEnd.COUNTEREXAMPLE if exact < 0 else SearchEnd.PROVED), seed
        outcomes.add(end)
    assert len(outcomes) == 2


def test_bounds_hold_in_each_box_and_are_no_looser_than_known() -> None:
    network = image()
    lower = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) - 0.5
    box = Interval(lower, lower + 0.2)
    settings = Settings()
    propagator = DeepBoxes(network.bound(), settings, None, NoTagger(), lambda: None)
    found = propagator.bound(box, {})
    assert propagator.work > 0
    values = network.values(points_in(box.to(torch.float64), 100).flatten(0, 1))
    for name, interval in found.intervals.items():
        each = values[name].reshape(100, 3, *interval.lower.shape[1:])
        assert (interval.lower <= each + 1e-9).all(), name
        assert (interval.upper >= each - 1e-9).all(), name
    half = Interval(box.lower, box.lower + 0.1)
    again = propagator.bound(half, {n: found.intervals[n] for n in propagator.start_nodes})
    for name in propagator.start_nodes:
        assert (again.intervals[name].lower >= found.intervals[name].lower).all()
        assert (again.intervals[name].upper <= found.intervals[name].upper).all()


def test_rows_of_the_whole_box_are_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = image()
    progress = bounded(network, nearly_unsafe(network, 1.0, 0.0), Method.CROWN)
    known = progress.cases[0].known
    assert known is not None
    propagator = DeepBoxes(network.bound(), Settings(), known, NoTagger(), lambda: None)
    starts = {name: known.intervals[name] for name in propagator.start_nodes}
    rows = counted_rows(monkeypatch)
    propagator.bound(known.box, starts)
    of_root = sum(count for _, count in rows)
    half = Interval(known.box.lower, known.box.centre)
    propagator.bound(half, starts)
    # What rounding costs is seen at a few neurons of each layer.
    assert of_root <= 8 * len(starts) < sum(count for _, count in rows) - of_root


def test_fewer_boxes_are_needed_than_by_forms_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network = image()
    instance = nearly_unsafe(network, 0.5, 0.1)
    monkeypatch.setattr(boxes, "FORMS_ALONE", 0)
    by_forms = bounded(network, instance, Method.CROWN)
    cheap = context(network, instance, by_forms)
    assert InputSplit(cheap).run() is SearchEnd.PROVED
    monkeypatch.setattr(deep_boxes, "TRIAL_WORK", 0)
    by_rows = bounded(network, instance, Method.CROWN)
    deep = context(network, instance, by_rows)
    assert InputSplit(deep).run() is SearchEnd.PROVED
    assert 1 < deep.progress.domains < cheap.progress.domains
    assert np.isfinite(by_rows.lower_bound)


@pytest.mark.parametrize(
    ("left", "work", "gains"), [(0.3, 0, True), (0.7, 0, False), (0.3, 10**11, False)]
)
def test_few_boxes_gain_where_each_cut_leaves_little_of_what_was_missed(
    monkeypatch: pytest.MonkeyPatch, left: float, work: int, gains: bool
) -> None:
    monkeypatch.setattr(deep_boxes, "TRIAL_WORK", work)
    monkeypatch.setattr(Cuts, "missing", (left, 1.0))
    network = image()
    instance = nearly_unsafe(network, 0.5, 0.02)
    chosen = context(network, instance, bounded(network, instance, Method.CROWN))
    times = iter([False] * 2)
    found = InputSplit(replace(chosen, pauses=lambda: next(times, True)))
    assert found.run() is SearchEnd.PAUSED
    assert found.gains is gains


def test_parts_that_would_stay_open_are_not_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is foreseen to take two cuts is cut twice at once: the halves have no rows."""
    monkeypatch.setattr(deep_boxes, "TRIAL_WORK", 0)
    network = image()
    instance = nearly_unsafe(network, 0.5, 0.1)
    counts = {}
    for cuts in (1, 2):
        monkeypatch.setattr(Foresight, "cuts", lambda *_, cuts=cuts: cuts)
        chosen = context(network, instance, bounded(network, instance, Method.CROWN))
        assert InputSplit(chosen).run() is SearchEnd.PROVED
        counts[cuts] = chosen.progress
    assert {point.domains for point in counts[1].history[:2]} == {1, 2}
    assert counts[2].history[0].open == 4
    assert counts[2].depth % 2 == 0
