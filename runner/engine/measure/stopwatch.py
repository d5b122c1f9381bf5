"""Seconds of one rank, by phase."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, process_time

from runner.contract.vocabulary import Phase


class Stopwatch:
    """Wall-clock and CPU seconds (of all threads) since it was made, and seconds per phase."""

    def __init__(self) -> None:
        self._wall_start = perf_counter()
        self._cpu_start = process_time()
        self._phase_s: dict[Phase, float] = {}

    @property
    def wall_s(self) -> float:
        return perf_counter() - self._wall_start

    @property
    def cpu_s(self) -> float:
        return process_time() - self._cpu_start

    @property
    def phase_s(self) -> dict[Phase, float]:
        """Seconds of the phases that have ended."""
        return dict(self._phase_s)

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Add the seconds inside to `phase`, also when it ends with an error; do not nest."""
        start = perf_counter()
        try:
            yield
        finally:
            self._phase_s[phase] = self._phase_s.get(phase, 0.0) + perf_counter() - start
