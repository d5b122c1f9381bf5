"""Properties of many boxes: bounded and halved together, each decided as if it were alone."""

from __future__ import annotations

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from questions import anything, case, incomplete, question, region
from small_networks import SmallNetwork, mlp, points_in

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.tagging import NoTagger
from runner.engine.search import many_boxes
from runner.engine.search.cases import CaseProgress
from runner.engine.search.many_boxes import ManyBoxes
from runner.engine.specs import boxes_around
from runner.problem.property.model import Case, Property


def least(network: SmallNetwork, box: Interval) -> float:
    """Of the first output, as far as 2,000 points show."""
    return float(network.outputs(points_in(box, 2000).double()[:, 0])[:, 0].min())


def boxes_of(network: SmallNetwork, below: float, count: int = 12, seed: int = 0) -> Property:
    """Boxes in which the first output may be no further below its least value than `below`."""
    generator = torch.Generator().manual_seed(seed)
    cases: list[Case] = []
    for _ in range(count):
        centre = torch.rand(network.graph.input.size, generator=generator) * 2 - 1
        lower, upper = (centre - 0.4).float(), (centre + 0.4).float()
        limit = least(network, Interval(lower[None], upper[None])) - below
        unsafe = region([[1.0, 0.0]], [limit]), region([[1.0, 0.0], [0.0, 1.0]], [limit, 1e3])
        cases.append(case(lower.tolist(), upper.tolist(), *unsafe[: 1 + len(cases) % 2]))
    return question(*cases, outputs=2)


def searched(
    network: SmallNetwork,
    instance: Property,
    most_pieces: int = 4096,
    rounds: int | None = None,
    *,
    forms: bool = False,
    bounded: list[int] | None = None,
) -> list[CaseProgress]:
    """`forms`: whether these come first; `bounded` grows by the pieces of each batch."""
    cases = incomplete(network, instance).cases
    shape = network.graph.input.shape
    roots = boxes_around(instance.cases, shape, torch.device("cpu"), torch.float64)
    asked: list[None] = []

    def ended() -> bool:
        asked.append(None)
        return rounds is not None and len(asked) > rounds

    boxes = ManyBoxes(
        network.bound(),
        cases,
        Settings(row_block=16),
        NoTagger(),
        lambda: None,
        roots if forms else None,
        most_pieces,
    )
    counts = [] if bounded is None else bounded
    boxes.run(ended, lambda count, depth, waiting, bound: counts.append(count))
    return cases


@examples(10)
@given(st.integers(0, 1000), st.booleans())
def test_what_no_box_reaches_is_excluded_of_each(seed: int, forms: bool) -> None:
    network = mlp(2, 12, 12, 2, seed=seed)
    cases = searched(network, boxes_of(network, below=0.2, seed=seed), forms=forms)
    assert not any(bool(found.open.any()) for found in cases)
    assert all(found.bound > 0 for found in cases)


@examples(10)
@given(st.integers(0, 1000), st.integers(0, 6), st.booleans())
def test_a_box_that_reaches_its_region_stays_open_whenever_it_ends(
    seed: int, rounds: int, forms: bool
) -> None:
    network = mlp(2, 12, 12, 2, seed=seed)
    instance = boxes_of(network, below=-1e-3, seed=seed)
    for rest in (None, rounds):
        for found in searched(network, instance, most_pieces=64, rounds=rest, forms=forms):
            assert bool(found.open[0])
            assert found.bound <= 0


def test_bounds_of_what_is_left_hold_and_are_no_looser_than_at_first() -> None:
    network = mlp(2, 24, 24, 2)
    instance = boxes_of(network, below=-0.05)
    first, later = (searched(network, instance, rounds=rounds) for rounds in (1, 8))
    for one, other in zip(first, later, strict=True):
        # The least value of the first output is 0.05 below the limit.
        assert one.bound <= other.bound <= -0.05 + 1e-4


def test_what_a_plane_proves_is_not_bounded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp(2, 24, 24, 2)
    instance = boxes_of(network, below=0.01)
    with_planes: list[int] = []
    without: list[int] = []
    for counts in (with_planes, without):
        cases = searched(network, instance, forms=True, bounded=counts)
        assert not any(bool(found.open.any()) for found in cases)
        monkeypatch.setattr(many_boxes, "left", lambda boxes, *rest: boxes)
    assert sum(with_planes) < 0.8 * sum(without)


def test_boxes_of_other_free_inputs_are_not_in_the_same_batch() -> None:
    network = mlp(2, 12, 12, 2)
    limit = region([[1.0, 0.0]], [-1e3])
    flat = [case([-1.0, 0.1], [1.0, 0.1], limit), case([0.1, -1.0], [0.1, 1.0], limit)]
    bounded: list[int] = []
    cases = searched(
        network, question(*[flat[n % 2] for n in range(10)], outputs=2), forms=True, bounded=bounded
    )
    assert bounded == [5, 5]
    assert not any(bool(found.open.any()) for found in cases)


def test_a_case_that_needs_many_pieces_is_left_to_a_search_of_its_own() -> None:
    network = mlp(2, 24, 24, 2)
    easy = boxes_of(network, below=0.5)
    hard = boxes_of(network, below=-0.01, count=1, seed=1)
    cases = searched(network, question(*easy.cases, *hard.cases, outputs=2), most_pieces=8)
    assert [bool(found.open.any()) for found in cases] == [False] * 12 + [True]


def test_a_point_is_not_halved_and_a_region_without_rows_stays_open() -> None:
    network = mlp(2, 4, 2)
    limit = float(network.outputs(torch.zeros(1, 2).double())[0, 0])
    points = question(
        case([0.0, 0.0], [0.0, 0.0], region([[1.0, 0.0]], [limit])),
        case([0.0, 0.0], [0.0, 0.0], region([[1.0, 0.0]], [limit - 0.1])),
        case([-1.0, 0.0], [1.0, 0.0], anything(2)),
        outputs=2,
    )
    assert [bool(found.open.any()) for found in searched(network, points)] == [True, False, True]


def test_cases_without_anything_open_are_left_alone() -> None:
    network = mlp(2, 4, 2)
    cases = incomplete(network, boxes_of(network, below=0.1, count=2)).cases
    for found in cases:
        found.open = torch.zeros_like(found.open)
    ManyBoxes(network.bound(), cases, Settings(row_block=16), NoTagger(), lambda: None).run()
    assert all(not bool(found.open.any()) for found in cases)
