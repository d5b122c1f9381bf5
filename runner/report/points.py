"""VNN-COMP's points, as of 2024 to 2026."""

from __future__ import annotations

POINTS = 10  # a correct answer
WRONG = -150  # `unsat` against a counterexample, `sat` without one


def percent(points: int, best: int) -> float:
    """What a category adds to the total score: 100 for the best tool, never less than 0."""
    return max(0.0, 100 * points / best) if best > 0 else 0.0
