"""GPU peaks, driven without a GPU through their seams."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from runner.engine.measure.gpu import CudaMeter, NvmlProcessPeak, NvmlReader


class ScriptedReader:
    """Gives `readings` one by one, then the last one for ever; an error is raised."""

    def __init__(self, *readings: int | Exception | None) -> None:
        self._readings = list(readings)
        self.pids: set[int] = set()
        self.exhausted = threading.Event()

    def used_bytes(self, pid: int) -> int | None:
        self.pids.add(pid)
        last = len(self._readings) == 1
        reading = self._readings[0] if last else self._readings.pop(0)
        if last:
            self.exhausted.set()
        if isinstance(reading, Exception):
            raise reading
        return reading


def _peak(reader: ScriptedReader) -> int | None:
    with NvmlProcessPeak(reader, every_s=0.001) as peak:
        assert reader.exhausted.wait(5)
    return peak.peak_bytes


def test_the_process_peak_is_the_highest_sample_of_this_process() -> None:
    reader = ScriptedReader(10, 70, 30, 20)
    assert _peak(reader) == 70
    assert reader.pids == {os.getpid()}


def test_a_process_that_nvml_does_not_list_has_no_peak() -> None:
    assert _peak(ScriptedReader(None, None)) is None


def test_samples_without_a_figure_are_passed_over() -> None:
    assert _peak(ScriptedReader(None, 40, None)) == 40


def test_even_the_shortest_stay_is_sampled() -> None:
    with NvmlProcessPeak(ScriptedReader(5), every_s=60) as peak:
        pass
    assert peak.peak_bytes == 5


def test_what_was_seen_before_nvml_failed_stays(caplog: pytest.LogCaptureFixture) -> None:
    failure = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    assert _peak(ScriptedReader(50, failure)) == 50
    assert "NVML gave up" in caplog.text


def test_the_reader_finds_the_device_by_uuid_and_the_process_by_pid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes = [SimpleNamespace(pid=7, usedGpuMemory=70), SimpleNamespace(pid=8, usedGpuMemory=80)]
    asked: list[Any] = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: asked.append(uuid))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: processes)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234")
    )
    reader = NvmlReader(torch.device("cuda", 0))
    assert asked == ["GPU-1234"]
    assert reader.used_bytes(8) == 80
    assert reader.used_bytes(9) is None


def test_the_allocator_peaks_start_at_zero_and_are_those_of_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = torch.device("cuda", 1)
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {device: 100}.__getitem__)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", {device: 200}.__getitem__)
    meter = CudaMeter(device)
    assert reset == [device]
    assert (meter.allocated_bytes, meter.reserved_bytes) == (100, 200)
