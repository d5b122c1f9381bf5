"""A moment by which a command has answered, whatever it is doing then."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# Kept for giving the answer: none is late.
MARGIN_S = 0.5
MARGIN_SHARE = 0.1


def last_moment(limit_s: float, spent_s: float) -> float:
    """Of `time.monotonic`, for a command that began `spent_s` ago."""
    return time.monotonic() - spent_s + limit_s - min(MARGIN_S, MARGIN_SHARE * limit_s)


@contextmanager
def at(moment: float, act: Callable[[], None]) -> Iterator[None]:
    """If the block still runs then (of `time.monotonic`), `act` and end this process at once.

    Every rank dies with it.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        try:
            act()
        finally:
            os._exit(0)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(1e-3, moment - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
