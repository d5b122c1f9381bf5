"""Ways to cut a box: all are tried, the one that leaves least goes on, others are tried again."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.search.cuts import LEAST_SEEN, NO_WAY, POWERS, TRIED, Cuts, worth

STEEP, WIDEST = POWERS.index(1.0), POWERS.index(0.0)


def taught(left: dict[int, float], count: int = LEAST_SEEN) -> Cuts:
    """Boxes of each way that still miss so much of what their parents missed."""
    cuts = Cuts()
    for way, share in left.items():
        before = torch.full((count,), -2.0)
        cuts.learn(torch.full((count,), way, dtype=torch.int8), before, share * before)
    return cuts


def used(cuts: Cuts, count: int = 64) -> Tensor:
    return torch.bincount(cuts.ways(count).long(), minlength=len(POWERS))


def test_all_ways_are_tried_until_each_has_been_seen() -> None:
    cuts = taught({0: 0.5, 1: 0.5})
    assert cuts.better is None
    assert used(cuts).tolist() == [64 * TRIED.count(way) // len(TRIED) for way in range(3)]


def test_the_way_that_leaves_least_goes_on_and_others_are_still_looked_at() -> None:
    for best in range(len(POWERS)):
        cuts = taught({way: 0.2 if way == best else 0.6 for way in range(len(POWERS))})
        assert cuts.better == best
        counts = used(cuts)
        assert int(counts.argmax()) == best
        assert (counts > 0).all()


def test_the_first_way_stays_where_none_is_clearly_better() -> None:
    assert taught({0: 0.5, 1: 0.49, 2: 0.5}).better == 0


def test_what_is_newer_counts_more() -> None:
    cuts = taught({0: 0.5, 1: 0.2, 2: 0.9})
    assert cuts.better == 1
    for _ in range(60):
        cuts.learn(torch.tensor([1, 2], dtype=torch.int8), *torch.tensor([[-1, -1], [-0.9, -0.1]]))
    assert cuts.better == 2


def test_a_closed_box_leaves_nothing_and_a_root_says_nothing() -> None:
    cuts = Cuts()
    inf = torch.inf
    ways = torch.tensor([0, 1, 2, NO_WAY], dtype=torch.int8).repeat(LEAST_SEEN)
    before = torch.tensor([-1.0, -1.0, -1.0, -1.0]).repeat(LEAST_SEEN)
    after = torch.tensor([-0.5, inf, -0.8, inf]).repeat(LEAST_SEEN)
    cuts.learn(ways, before, after)
    assert cuts.better == 1
    without_bounds = Cuts()
    without_bounds.learn(ways, torch.full_like(before, -inf), after)
    assert without_bounds.better is None


def test_steep_takes_the_steepest_times_its_width_and_widest_the_widest() -> None:
    steep, width = torch.tensor([[8.0, 1.0, 0.0]]), torch.tensor([[1.0, 4.0, 5.0]])
    chosen = {
        way: int(worth(torch.tensor([POWERS[way]]), steep, width).argmax())
        for way in range(len(POWERS))
    }
    assert (chosen[STEEP], chosen[WIDEST]) == (0, 2)
    # Half-way: sqrt(1/8) * 4 against 1.
    assert chosen[0] == 1


def test_no_input_is_left_whole_for_ever() -> None:
    steep, width = torch.tensor([[1.0, 0.0]]), torch.tensor([[1e-6, 1.0]])
    for way in range(len(POWERS)):
        assert int(worth(torch.tensor([POWERS[way]]), steep, width).argmax()) == 1


def test_open_neurons_come_first_where_they_are_known_and_steepness_where_none_is_open() -> None:
    cuts = Cuts(opening=True)
    steep, width = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.ones((2, 2))
    opening = torch.tensor([[0.1, 0.5], [0.0, 0.0]])
    way = torch.zeros(2, dtype=torch.int8)
    assert cuts.worth(way, steep, opening, width).argmax(1).tolist() == [1, 0]
    assert cuts.worth(way, steep, None, width).argmax(1).tolist() == [0, 0]
    others = torch.full((2,), 1 + STEEP, dtype=torch.int8)
    assert cuts.worth(others, steep, opening, width).argmax(1).tolist() == [0, 0]
    tried = torch.bincount(cuts.ways(60).long())
    assert (tried > 0).all()
    assert int(tried.argmax()) == 0


def test_without_other_ways_open_neurons_decide_alone() -> None:
    assert Cuts(several=False, opening=True).ways(40).tolist() == [0] * 40
