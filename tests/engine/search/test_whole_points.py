"""Inputs that reach over whole numbers, where all else is given: each combination is tried."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from questions import DriverStub, case, question, region
from small_networks import CPU, Builder, SmallNetwork

from runner.engine.attack import pgd
from runner.engine.attack.pgd import Attack
from runner.engine.attack.whole_points import MOST_POINTS, whole_points
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op
from runner.engine.targets import Candidate, Target


def needle(row: float, column: float) -> SmallNetwork:
    """0 where the first two of three inputs are in this row and column of an image, else more."""
    builder = Builder((3,))
    limits = {"low": -1e6, "high": 1e6}
    whole = builder.add(Op.FUNCTION, ("x",), (3,), {"function": "Truncated", **limits})
    place = builder.linear_of(whole, torch.eye(2, 3), -torch.tensor([row, column]))
    hits = builder.add(Op.FUNCTION, (place,), (2,), {"function": "WholeZero"})
    return builder.network(builder.linear_of(hits, -torch.ones(1, 2), torch.tensor([2.0])))


@pytest.mark.parametrize("at_once", [1, 8])
def test_a_place_among_thousands_is_found(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgd, "WITHOUT_GRADIENT", at_once)
    network = needle(17, 42)
    instance = question(case([0, 0, 0.5], [62, 62, 0.5], region([[1]], [0.5])))
    found: list[np.ndarray] = []

    def confirm(candidate: Candidate) -> bool:
        found.append(candidate[0])
        return True

    attack = Attack(DriverStub(network), instance, CPU, 0, NoTagger(), lambda: None, confirm)
    assert attack.search_whole([Target(0, 0)], lambda: False)
    assert [point.tolist() for point in found] == [[17.0, 42.0, 0.5]]


def test_what_is_nowhere_is_not_found() -> None:
    instance = question(case([0, 0, 0.5], [9, 9, 0.5], region([[1]], [0.5])))
    attack = Attack(
        DriverStub(needle(17, 42)), instance, CPU, 0, NoTagger(), lambda: None, lambda _: True
    )
    assert not attack.search_whole([Target(0, 0)], lambda: False)


def test_the_search_ends_when_its_time_is_over() -> None:
    instance = question(case([0, 0, 0.5], [62, 62, 0.5], region([[1]], [0.5])))
    network = DriverStub(needle(17, 42))
    attack = Attack(network, instance, CPU, 0, NoTagger(), lambda: None, lambda _: True)
    assert not attack.search_whole([Target(0, 0)], lambda: True)
    assert network.points == []


def test_points_are_all_combinations_and_the_middle_of_what_is_given() -> None:
    points = whole_points(case([0.2, 1.0, -1.0], [2.0, 1.0 + 1e-7, 0.9]))
    assert points[:, [0, 2]].tolist() == [[1.0, -1.0], [1.0, 0.0], [2.0, -1.0], [2.0, 0.0]]
    assert ((points[:, 1] >= 1.0) & (points[:, 1] <= 1.0 + 1e-7)).all()


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ([0.0, 0.0], [0.0, 0.0]),  # a point
        ([0.1, 0.0], [0.9, 5.0]),  # one of them reaches over none
        ([0.0, 0.0], [MOST_POINTS / 2, 2.0]),  # too many
        ([-1e300, 0.0], [1e300, 0.0]),
    ],
)
def test_other_boxes_have_none(lower: list[float], upper: list[float]) -> None:
    assert len(whole_points(case(lower, upper))) == 0
