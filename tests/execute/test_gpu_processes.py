"""What NVML tells of processes, with a stand-in for it."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from runner.execute.gpu_processes import GpuProcesses

HELD = {0: {10: 100, 11: 20}, 1: {10: 3, 99: 4000}}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def processes(gpu: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in HELD[gpu].items()]

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(HELD))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", processes)


@pytest.mark.usefixtures("two_gpus")
def test_it_is_the_sum_over_processes_and_gpus() -> None:
    assert GpuProcesses().held_bytes({10, 11, 12}) == 123


@pytest.mark.usefixtures("two_gpus")
def test_processes_that_nvml_does_not_know_hold_nothing_that_is_known() -> None:
    assert GpuProcesses().held_bytes({12}) is None


@pytest.mark.usefixtures("two_gpus")
def test_a_driver_that_goes_away_ends_the_measuring_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus = GpuProcesses()

    def gone(gpu: int) -> list[SimpleNamespace]:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", gone)
    assert gpus.held_bytes({10}) is None
    assert gpus.held_bytes({10}) is None


def test_without_a_driver_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert GpuProcesses().held_bytes({10}) is None
