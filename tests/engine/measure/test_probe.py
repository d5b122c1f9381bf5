"""A probe fills the measured fields of a rank's report."""

from __future__ import annotations

import logging
import time

import pynvml
import pytest
import torch
from given import given

from runner.contract.vocabulary import Memory, Meter, Phase
from runner.engine.measure import probe as probe_module
from runner.engine.measure.library import tensor_meter
from runner.engine.measure.probe import Probe

CPU = torch.device("cpu")


class FakeRssMeter:
    """Resident memory of a whole worker also falls, as the system takes pages of files back."""

    peak_bytes = 300


def test_on_a_cpu_it_follows_tensors_phases_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "RssMeter", FakeRssMeter)
    with Probe(CPU) as probe:
        with probe.phase(Phase.INCOMPLETE), probe.kind(Memory.A):
            block = torch.zeros(1 << 24)
            time.sleep(0.02)
        del block
        measured = probe.measurements()
    assert measured.meter is tensor_meter().name
    assert measured.peak_tensor_bytes == measured.peak_a_bytes == 1 << 26
    assert measured.peak_rss_bytes == 300
    assert given(measured.wall_s) >= given(measured.incomplete_s) >= 0.02
    assert measured.nvml_peak_bytes is None
    assert measured.peak_gpu_allocated_bytes is None


def test_weights_read_from_a_file_count_once_adopted() -> None:
    weight = torch.zeros(1024)
    with Probe(CPU) as probe:
        probe.adopt(weight, Memory.WEIGHTS)
        assert probe.measurements().peak_weight_bytes == 4096


class FakeCudaMeter:
    allocated_bytes = 100
    reserved_bytes = 200

    def __init__(self, device: torch.device) -> None:
        assert device.type == "cuda"


class FakeReader:
    closed = False

    def __init__(self, device: torch.device) -> None:
        FakeReader.closed = False

    def used_bytes(self, pid: int) -> int | None:
        assert not self.closed
        return 300

    def close(self) -> None:
        FakeReader.closed = True


def test_on_a_gpu_the_allocator_and_nvml_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "CudaMeter", FakeCudaMeter)
    monkeypatch.setattr(probe_module, "NvmlReader", FakeReader)
    with Probe(torch.device("cuda", 0)) as probe:
        with probe.kind(Memory.A):
            torch.zeros(10)
        probe.adopt(torch.zeros(10), Memory.WEIGHTS)
    assert FakeReader.closed
    measured = probe.measurements()
    assert measured.meter is Meter.CUDA
    assert measured.peak_tensor_bytes == measured.peak_gpu_allocated_bytes == 100
    assert measured.peak_gpu_reserved_bytes == 200
    assert measured.nvml_peak_bytes == 300
    assert measured.peak_a_bytes is None


def test_without_nvml_its_peak_is_not_invented(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_driver(device: torch.device) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(probe_module, "CudaMeter", FakeCudaMeter)
    monkeypatch.setattr(probe_module, "NvmlReader", no_driver)
    with caplog.at_level(logging.WARNING), Probe(torch.device("cuda", 0)) as probe:
        assert probe.measurements().nvml_peak_bytes is None
    assert "NVML" in caplog.text
