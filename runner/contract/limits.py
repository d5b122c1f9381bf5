"""What the kernel holds a rank to: death with its parent, and a cap on host memory."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """The kernel sends SIGKILL to this process when the thread that started it ends.

    `parent`: the process of that thread. Ends this one at once where it is gone already.
    """
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)  # it died before the kernel was told to watch it


def cap_memory(limit_bytes: int) -> None:
    """Let the private writable memory of this process grow by `limit_bytes`, no further.

    Beyond the cap an allocation fails, which Python, NumPy and torch turn into exceptions. Unlike
    RLIMIT_AS, RLIMIT_DATA leaves alone the address space that CUDA reserves without using it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + limit_bytes, hard))


def lift_memory_cap() -> None:
    """Undo `cap_memory`, so that there is memory to report that there was none."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _data_bytes() -> int:
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmData")
