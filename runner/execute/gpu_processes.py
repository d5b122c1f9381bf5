"""The GPU memory that processes hold, as NVML tells it; no torch."""

from __future__ import annotations

from collections.abc import Collection

import pynvml


class GpuProcesses:
    """Asks every GPU of this machine. Without a driver there is none, and nothing to tell."""

    def __init__(self) -> None:
        self._gpus = _handles()

    def held_bytes(self, pids: Collection[int]) -> int | None:
        """By all of these processes on all GPUs; None where NVML knows none of them, as in a
        container with its own pids.
        """
        held: int | None = None
        try:
            for gpu in self._gpus:
                for process in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu):
                    if process.pid in pids and process.usedGpuMemory is not None:
                        held = (held or 0) + int(process.usedGpuMemory)
        except pynvml.NVMLError:
            self._gpus = []  # the driver is gone: what was measured until here stays
        return held


def _handles() -> list[object]:
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    except pynvml.NVMLError:
        return []
