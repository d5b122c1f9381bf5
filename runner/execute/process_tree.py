"""All processes below this one: found, measured and ended, whatever sessions they made.

A process that outlives its parent would be handed to init and be lost. `adopt_orphans` makes this
process take it instead, so that every descendant stays one.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable
from time import monotonic, sleep

import psutil

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36
_ROUND_S = 0.01


def adopt_orphans() -> None:
    """From here on descendants whose parent ends become children of this process."""
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def descendants() -> list[psutil.Process]:
    """Every process below this one that has not ended."""
    return [process for process in psutil.Process().children(recursive=True) if _runs(process)]


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Their resident memory together; pages that two of them share count twice."""
    return sum(_resident(process) for process in processes)


def end_all(polite_s: float) -> None:
    """Ends every descendant: asked to at first, made to after `polite_s`; returns when none is
    left.
    """
    _signal_all(signal.SIGTERM)
    # A suspended process ends only once it goes on.
    _signal_all(signal.SIGCONT)
    wait_for_none(polite_s)
    # Whoever is killed may have started another just before.
    while descendants():
        _signal_all(signal.SIGKILL)
        reap()
        sleep(_ROUND_S)
    reap()


def wait_for_none(timeout_s: float) -> bool:
    """Waits until no descendant runs; whether that came within the time."""
    give_up = monotonic() + timeout_s
    while descendants():
        reap()
        if monotonic() >= give_up:
            return False
        sleep(_ROUND_S)
    reap()
    return True


def reap() -> dict[int, int]:
    """Buries the children that have ended; their exit statuses, see waitpid(2), by pid."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def _signal_all(number: signal.Signals) -> None:
    for process in descendants():
        try:
            process.send_signal(number)
        except psutil.Error:
            continue  # it ended first


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it ended between two looks
