"""Peak resident memory of one rank above what it started with. Linux only."""

from __future__ import annotations

import logging
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5): sets VmHWM to VmRSS

_log = logging.getLogger(__name__)


class RssMeter:
    """Peak RSS since it was made, in bytes.

    `reset` is false where the kernel does not let a process reset its peak. What is then measured
    includes peaks since the process was forked, which for a fresh rank is nearly the same.
    """

    def __init__(self, clear_refs: Path = _CLEAR_REFS, status: Path = _STATUS) -> None:
        self._status = status
        self.reset = _reset_peak(clear_refs)
        self._start_bytes = _kilobytes(status, "VmRSS") * 1024

    @property
    def peak_bytes(self) -> int:
        """Above the start, at least 0."""
        return max(0, _kilobytes(self._status, "VmHWM") * 1024 - self._start_bytes)


def _reset_peak(clear_refs: Path) -> bool:
    try:
        clear_refs.write_text(_RESET_PEAK)
    except OSError as error:
        _log.info("peak RSS counts from the fork of this process: %s", error)
        return False
    return True


def _kilobytes(status: Path, field: str) -> int:
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"{status} has no {field}")
