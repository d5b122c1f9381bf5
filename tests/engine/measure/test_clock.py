"""Seconds of a rank add up by phase."""

from __future__ import annotations

import time

import pytest

from runner.contract.vocabulary import Phase
from runner.engine.measure.stopwatch import Stopwatch

pytestmark = pytest.mark.alone


def _compute(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(100))


def test_sleep_takes_wall_clock_and_no_cpu() -> None:
    stopwatch = Stopwatch()
    time.sleep(0.1)
    assert stopwatch.wall_s >= 0.1
    assert stopwatch.cpu_s < 0.05


def test_computing_takes_cpu() -> None:
    stopwatch = Stopwatch()
    _compute(0.05)
    assert stopwatch.cpu_s >= 0.05


def test_a_phase_adds_up_over_its_visits() -> None:
    stopwatch = Stopwatch()
    for _ in range(2):
        with stopwatch.phase(Phase.ATTACK):
            time.sleep(0.03)
    with stopwatch.phase(Phase.LOAD):
        pass
    assert stopwatch.phase_s[Phase.ATTACK] >= 0.06
    assert stopwatch.phase_s[Phase.LOAD] < 0.03
    assert set(stopwatch.phase_s) == {Phase.ATTACK, Phase.LOAD}


def test_a_phase_that_fails_still_counts() -> None:
    stopwatch = Stopwatch()

    def fail() -> None:
        time.sleep(0.02)
        raise ValueError("seven")

    with pytest.raises(ValueError, match="seven"), stopwatch.phase(Phase.INCOMPLETE):
        fail()
    assert stopwatch.phase_s[Phase.INCOMPLETE] >= 0.02
