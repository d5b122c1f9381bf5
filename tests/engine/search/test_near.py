"""α is tried on boxes near their thresholds, as near as it has paid for."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.search.near import CANCELLING, SEVERAL, Near, Reach, Trials

MARGINS = -torch.tensor([[0.1], [1.0], [10.0]])


def tried(near: Trials) -> list[bool]:
    return near.chosen(MARGINS)[:, 0].tolist()


def rounds(near: Trials, count: int, closes: float, price: float) -> None:
    """So many, in which all boxes nearer than `closes` close."""
    for _ in range(count):
        chosen: Tensor = MARGINS[near.chosen(MARGINS)]
        if near.pays(price) and len(chosen):
            near.learn(chosen, chosen + closes, price)
        else:
            near.skipped()


def test_what_is_closed_is_not_tried() -> None:
    closed = torch.tensor([[torch.inf], [0.5], [-1.0]])
    assert Near().chosen(closed)[:, 0].tolist() == [False, False, True]


def test_single_rows_are_tried_where_it_is_cheap_and_mixes_at_once() -> None:
    assert Near().pays(0.1)
    assert not Near().pays(0.5)
    assert Near(SEVERAL).pays(0.4)
    assert Near(CANCELLING).pays(1.5)


def test_where_only_near_ones_close_far_ones_are_left_out() -> None:
    near = Near()
    rounds(near, 2, closes=0.5, price=0.9)
    rounds(near, 200, closes=0.5, price=0.9)
    assert tried(near)[2] is False


def test_where_all_close_all_are_tried_and_more_is_paid() -> None:
    near = Near()
    rounds(near, 8, closes=100.0, price=0.1)
    assert tried(near) == [True] * 3
    assert near.pays(1.5)


def test_where_none_close_nothing_is_paid_but_after_a_while_it_is_tried_again() -> None:
    near = Near(CANCELLING)
    rounds(near, 6, closes=0.0, price=0.1)
    assert not (near.pays(0.1) and any(tried(near)))
    for _ in range(200):
        near.skipped()
    assert near.pays(0.1)
    assert tried(near) == [True] * 3


def test_beside_a_dear_box_all_is_tried_at_any_price_that_alpha_may_reach() -> None:
    near = Reach()
    assert tried(near) == [True] * 3
    rounds(near, 20, closes=0.9, price=0.9)
    assert tried(near) == [True, True, False]
    assert near.pays(0.9)
    assert not near.pays(torch.inf)  # of no trials
    for _ in range(20):
        near.skipped()
    assert tried(near) == [True] * 3


def test_beside_a_dear_box_alpha_is_not_given_up_where_it_gained_nothing() -> None:
    near = Reach()
    near.learn(torch.tensor([-5.0, -1.5]), torch.tensor([-5.0, -1.5]), 0.1)
    assert tried(near) == [True, True, False]
