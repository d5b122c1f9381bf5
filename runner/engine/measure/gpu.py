"""Peak GPU memory of one rank: torch's caching allocator, and the whole process as NVML sees it."""

from __future__ import annotations

import logging
import os
import threading
from types import TracebackType
from typing import Protocol

import pynvml
import torch

SAMPLE_EVERY_S = 0.01

_log = logging.getLogger(__name__)


class CudaMeter:
    """Peaks of torch's allocator on one device since it was made, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.init()  # the allocator has no statistics before
        torch.cuda.reset_peak_memory_stats(device)

    @property
    def allocated_bytes(self) -> int:
        """What tensors took."""
        return torch.cuda.max_memory_allocated(self._device)

    @property
    def reserved_bytes(self) -> int:
        """What the allocator took from the driver to serve them."""
        return torch.cuda.max_memory_reserved(self._device)


class GpuReader(Protocol):
    """Tells the GPU memory that processes use at this moment."""

    def used_bytes(self, pid: int) -> int | None:
        """Bytes of the process `pid` (NVML's numbering), None where they are not known."""


class NvmlReader:
    """Reads one GPU through NVML, which it initialises; `close` ends that.

    Raises pynvml.NVMLError where there is no driver or no such device.
    """

    def __init__(self, device: torch.device) -> None:
        pynvml.nvmlInit()
        # NVML knows nothing of CUDA_VISIBLE_DEVICES; the UUID is the same for both.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def used_bytes(self, pid: int) -> int | None:
        """None too in a container with its own pids: NVML lists the host's."""
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
            if process.pid == pid:
                used: int | None = process.usedGpuMemory
                return used
        return None

    def close(self) -> None:
        pynvml.nvmlShutdown()


class NvmlProcessPeak:
    """Samples the GPU memory of this process in a thread while it is entered.

    Unlike `CudaMeter` it sees the CUDA context, NCCL's buffers and libraries' workspaces.
    """

    def __init__(self, reader: GpuReader, every_s: float = SAMPLE_EVERY_S) -> None:
        self._reader = reader
        self._every_s = every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="nvml", daemon=True)
        self._peak: int | None = None

    @property
    def peak_bytes(self) -> int | None:
        """The most that was seen; None while nothing was."""
        return self._peak

    def __enter__(self) -> NvmlProcessPeak:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        pid = os.getpid()
        while True:
            try:
                used = self._reader.used_bytes(pid)
            except pynvml.NVMLError as error:
                _log.warning("NVML gave up: %s; its peak ends here", error)
                return
            if used is not None:
                self._peak = max(used, self._peak or 0)
            if self._done.wait(self._every_s):
                return
