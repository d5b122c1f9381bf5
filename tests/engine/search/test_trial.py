"""A search's trial ends when doubling its domains no longer pays."""

from __future__ import annotations

import pytest

from runner.engine.search.trial import Trial


def looks(trial: Trial, gaps: list[float]) -> list[bool]:
    """Whether the trial stalls, at each look when it is due."""
    found, visited = [], 1
    for gap in gaps:
        while not trial.due(visited):
            visited += 1
        found.append(trial.stalls(visited, gap))
    return found


def test_the_first_look_is_at_half_of_the_domains_and_ends_nothing() -> None:
    trial = Trial(100)
    assert not trial.due(49)
    assert trial.due(50)
    assert not trial.stalls(50, 5.0)
    assert not trial.due(99)
    assert trial.due(100)


def test_a_look_follows_whenever_the_domains_have_doubled() -> None:
    trial = Trial(100)
    trial.stalls(60, 5.0)
    assert not trial.due(119)
    assert trial.due(120)


@pytest.mark.parametrize(
    ("gaps", "stalls"),
    [
        ([8.0, 4.0, 2.0, 1.0], [False, False, False, False]),
        ([8.0, 7.9], [False, True]),
        ([8.0, 4.0, 3.9], [False, False, True]),
    ],
)
def test_it_stalls_where_the_gap_hardly_shrinks(gaps: list[float], stalls: list[bool]) -> None:
    assert looks(Trial(100), gaps) == stalls


def test_a_trial_of_no_domains_ends_at_once() -> None:
    assert looks(Trial(0), [1.0]) == [True]
