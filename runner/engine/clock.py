"""The time one verification has, and what stops it.

Rank 0's clock decides for all, so that no rank leaves alone.
"""

from __future__ import annotations

import time

from runner.engine.layout.group import Group


class DeadlineReached(Exception):
    """Raised on every rank at the same point of the computation."""


class TimeIsUp(Exception):
    """Raised inside a block by a rank's own clock; the other ranks do not know yet."""


class RoundOver(Exception):
    """Raised by a checkpoint: what this rank is doing is of no use any more."""


class Deadline:
    """Counts from its making. All ranks must call `passed` and `check` at the same points."""

    def __init__(self, group: Group, seconds: float) -> None:
        self._group = group
        self._seconds = seconds
        self._start = time.perf_counter()

    @property
    def over(self) -> bool:
        """Whether the time is over by this rank's own clock. No collective."""
        return self.left <= 0

    @property
    def left(self) -> float:
        """Seconds, by this rank's own clock."""
        return max(0.0, self._seconds - (time.perf_counter() - self._start))

    def share_after(self, fraction: float) -> float:
        """Of all time, the share that is over once that fraction of what is left now is."""
        return 1.0 - self.left * (1.0 - fraction) / self._seconds

    def passed(self, fraction: float = 1.0, group: Group | None = None) -> bool:
        """Whether that fraction of the time is over; `group`: of the gang, who ask alone."""
        over = time.perf_counter() - self._start > fraction * self._seconds
        return (self._group if group is None else group).decide(over)

    def check_in(self, group: Group) -> None:
        """Raises TimeIsUp on a part of the gang alone, by its first rank's clock; of a group of one
        no collective.
        """
        if group.decide(self.over):
            raise TimeIsUp

    def check(self) -> None:
        """Raises DeadlineReached when the time is over."""
        if self.passed():
            raise DeadlineReached
