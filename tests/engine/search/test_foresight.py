"""A dear box is cut as often at once as its gap and what a cut leaves of it say."""

from __future__ import annotations

import pytest
import torch

from runner.engine.search.foresight import MOST_CUTS, Foresight


def cuts(foresight: Foresight, depth: int, margin: float, nearest: float = 4.0) -> int:
    """Of two disjuncts, of which the second is closed."""
    margins, values = torch.tensor([margin, torch.inf]), torch.tensor([nearest, torch.inf])
    return foresight.cuts(depth, margins, values)


@pytest.mark.parametrize(
    ("margin", "count"), [(-0.1, 1), (-8.0, 1), (-40.0, 2), (-100.0, 3), (-1e6, MOST_CUTS)]
)
def test_a_gap_beside_which_all_that_was_seen_is_little_takes_several(
    margin: float, count: int
) -> None:
    assert cuts(Foresight(), 0, margin) == count


def test_what_cuts_have_left_so_far_is_what_the_next_are_taken_to_leave() -> None:
    steep, slow = Foresight(), Foresight()
    for foresight, first in ((steep, -1e4), (slow, -60.0)):
        cuts(foresight, 0, first)
    assert cuts(steep, 2, -30.0) == 1
    assert cuts(slow, 2, -30.0) == 3


def test_the_disjunct_that_is_furthest_off_decides() -> None:
    near, far = torch.tensor([-1.0, -100.0]), torch.tensor([4.0, 4.0])
    assert Foresight().cuts(0, near, far) == 3
    assert Foresight().cuts(0, near, torch.tensor([4.0, 90.0])) == 1


@pytest.mark.parametrize(
    ("margin", "nearest"),
    [(-torch.inf, 4.0), (-1.0, torch.nan), (-1.0, -0.5), (-1.0, 0.0), (torch.inf, 4.0)],
)
def test_where_nothing_can_be_foreseen_a_box_is_cut_once(margin: float, nearest: float) -> None:
    assert cuts(Foresight(), 0, float(margin), float(nearest)) == 1
