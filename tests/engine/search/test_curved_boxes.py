"""Input splits of networks that multiply values: curves close boxes, rows where those do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from questions import case, incomplete, question, region
from small_networks import SmallNetwork, lyapunov, multiplied
from test_input_split import context, search

from runner.contract.workload import Workload
from runner.engine.bounds.boxes import BoxBounds, BoxPropagator
from runner.engine.bounds.interval import Interval
from runner.engine.search.beside import Beside
from runner.engine.search.box_store import Boxes
from runner.engine.search.curved_boxes import CurvedBoxes
from runner.engine.search.input_split import InputSplit
from runner.engine.search.margins import Margins
from runner.engine.search.search import SearchEnd
from runner.problem.property.model import Property


def ring(curvature: tuple[float, ...], share: float) -> Property:
    """Unsafe: V(x) = x · (P x) below a share of what it is on the sphere at least, in a box beside
    the origin.
    """
    least = share * min(curvature) * 0.3**2
    box = case([0.3, *[-1.0] * (len(curvature) - 1)], [1.0] * len(curvature))
    return question(case(list(box.lower), list(box.upper), region([[1.0]], [least])))


def boxes_of(network: SmallNetwork, instance: Property) -> int:
    outcome, found, progress = search(network, instance)
    assert outcome is SearchEnd.PROVED
    assert found.lower_bound > 0
    return progress.domains


def test_what_curves_say_saves_nearly_all_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    curvature = (1.0, 0.5, 0.2)
    network, instance = lyapunov(*curvature), ring(curvature, 0.9)
    curved = boxes_of(network, instance)
    monkeypatch.setattr(CurvedBoxes, "of", lambda *arguments: None)
    assert curved == 1
    assert boxes_of(network, instance) > 50


@examples(30)
@given(st.integers(0, 2**16))
def test_no_verdict_contradicts_a_sample(seed: int) -> None:
    random = np.random.default_rng(seed)
    network = multiplied(seed, inputs=int(random.integers(1, 4)))
    inputs = network.graph.input.size
    lower = random.normal(size=inputs).astype(np.float32).astype(np.float64)
    upper = (lower + random.uniform(0, 1, size=inputs)).astype(np.float32).astype(np.float64)
    x = torch.from_numpy(random.uniform(lower, upper, size=(500, inputs)))
    reached = network.outputs(x).numpy()
    disjuncts = []
    for _ in range(2):
        matrix = random.normal(size=(2, 3))
        values = reached @ matrix.T
        nearest = values[values.max(1).argmin()]
        disjuncts.append(region(matrix, nearest + random.choice([-0.3, 0.1])))
    instance = question(case(list(lower), list(upper), *disjuncts), outputs=3)
    inside = any(part.holds(outputs) for part in disjuncts for outputs in reached)
    outcome, found, _ = search(network, instance)
    if inside:
        assert outcome is SearchEnd.COUNTEREXAMPLE
    elif outcome is SearchEnd.PROVED:
        assert found.lower_bound > 0


def saddle() -> tuple[SmallNetwork, Property]:
    """Bends both ways, so that its box is cut; descents end at -1.38840 at least."""
    network = lyapunov(1.0, -0.6, 0.4, 0.2)
    lower, upper = [-0.9, -0.4, -1.0, -0.6], [1.0, 0.7, 0.5, 0.8]
    return network, question(case(lower, upper, region([[1.0]], [-1.3886])))


def counting_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of boxes whenever rows bound some."""
    asked: list[int] = []
    bound = BoxPropagator.bound

    def counted(self: BoxPropagator, box: Interval, known: Mapping[str, Interval]) -> BoxBounds:
        asked.append(len(box.lower))
        return bound(self, box, known)

    monkeypatch.setattr(BoxPropagator, "bound", counted)
    return asked


def test_rows_are_left_out_where_curves_close_boxes_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = counting_rows(monkeypatch)
    domains = boxes_of(*saddle())
    assert domains > 10
    assert sum(asked) < domains / 4


def test_rows_close_boxes_where_curves_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    margins = CurvedBoxes.margins

    def nothing(self: CurvedBoxes, boxes: Boxes) -> Margins:
        found = margins(self, boxes)
        return replace(found, margins=torch.full_like(found.margins, -torch.inf))

    curvature = (1.0, 0.5, 0.2)
    network, instance = lyapunov(*curvature), ring(curvature, 0.9)
    monkeypatch.setattr(CurvedBoxes, "of", lambda *arguments: None)
    by_rows = boxes_of(network, instance)
    monkeypatch.undo()
    monkeypatch.setattr(CurvedBoxes, "margins", nothing)
    # Some boxes go without: those are not shrunk, either.
    assert boxes_of(network, instance) < 4 * by_rows


def test_rows_are_tried_on_a_few_boxes_and_taken_where_they_close_more() -> None:
    beside, half = Beside(), torch.tensor([[torch.inf], [-1.0]]).repeat(100, 1)
    looks = [len(beside.chosen(half)) for _ in range(8)]
    assert looks == [0, 0, 0, 6, 0, 0, 0, 6]
    beside.learn(6, 3)
    assert not beside.pays
    for _ in range(3):
        beside.learn(6, 6)
    assert not beside.pays  # they cost twice as much, and close no more than twice as many
    none = torch.full((200, 1), -torch.inf)
    for _ in range(3):
        beside.chosen(none)
    assert beside.chosen(none).tolist() == list(range(200))


def test_a_fixed_workload_is_bounded_by_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, instance = saddle()
    asked = counting_rows(monkeypatch)
    monkeypatch.setattr(CurvedBoxes, "margins", lambda *arguments: pytest.fail("curves were asked"))
    chosen = context(network, instance, incomplete(network, instance))
    InputSplit(replace(chosen, workload=Workload(rounds=2, batch=4))).run()
    assert asked
