"""All that is measured of one rank, in one hand."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Any

import pynvml
import torch

from runner.contract.measurements import Measurements, by_kind, by_phase
from runner.contract.rss import RssMeter
from runner.contract.vocabulary import Memory, Meter, Phase
from runner.engine.measure.gpu import CudaMeter, NvmlProcessPeak, NvmlReader
from runner.engine.measure.library import tensor_meter
from runner.engine.measure.stopwatch import Stopwatch
from runner.engine.measure.tensors import TensorMeter

_log = logging.getLogger(__name__)


class Probe:
    """Measures a rank that computes on `device`, from its making on; tensors while it is entered.

    On a CPU a TensorMeter counts tensors; on a GPU the allocator does, and then nothing is known
    by kind.
    """

    def __init__(self, device: torch.device) -> None:
        self._stopwatch = Stopwatch()
        self._rss = RssMeter()
        self._tensors: TensorMeter | None = None
        self._cuda: CudaMeter | None = None
        self._nvml: NvmlProcessPeak | None = None
        self._entered = ExitStack()
        if device.type == "cuda":
            self._cuda = CudaMeter(device)
            self._nvml = _nvml_peak(device, self._entered)
        else:
            self._tensors = tensor_meter()

    def __enter__(self) -> Probe:
        for meter in (self._nvml, self._tensors):
            if meter is not None:
                self._entered.enter_context(meter)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered.close()

    def kind(self, kind: Memory) -> AbstractContextManager[None]:
        """Tensors made inside count as `kind`; the innermost counts."""
        return nullcontext() if self._tensors is None else self._tensors.kind(kind)

    def adopt(self, tensor: torch.Tensor, kind: Memory) -> None:
        """Count `tensor`, which no torch operator made (it was read from a file), as `kind`."""
        if self._tensors is not None:
            self._tensors.adopt(tensor, kind)

    def phase(self, phase: Phase) -> AbstractContextManager[None]:
        """The seconds inside count as `phase`; phases do not nest."""
        return self._stopwatch.phase(phase)

    def measurements(self) -> Measurements:
        """What was measured up to now."""
        tensors, cuda, nvml = self._tensors, self._cuda, self._nvml
        allocated = None if cuda is None else cuda.allocated_bytes
        kinds: dict[str, Any] = {}
        if tensors is not None:
            kinds = by_kind("peak", tensors.peak_by_kind())
            kinds |= by_kind("at_peak", tensors.at_peak_by_kind())
        return Measurements(
            wall_s=self._stopwatch.wall_s,
            cpu_s=self._stopwatch.cpu_s,
            meter=Meter.CUDA if tensors is None else tensors.name,
            peak_tensor_bytes=allocated if tensors is None else tensors.total.peak,
            peak_rss_bytes=self._rss.peak_bytes,
            peak_gpu_allocated_bytes=allocated,
            peak_gpu_reserved_bytes=None if cuda is None else cuda.reserved_bytes,
            nvml_peak_bytes=None if nvml is None else nvml.peak_bytes,
            **by_phase(self._stopwatch.phase_s),
            **kinds,
        )


def _nvml_peak(device: torch.device, entered: ExitStack) -> NvmlProcessPeak | None:
    """None, and a warning, where NVML cannot be read."""
    try:
        reader = NvmlReader(device)
    except pynvml.NVMLError as error:
        _log.warning("the NVML peak is not measured: %s", error)
        return None
    entered.callback(reader.close)
    return NvmlProcessPeak(reader)
