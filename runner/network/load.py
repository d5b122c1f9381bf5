"""An ONNX file as a torch module, and its replay against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx2torch
import onnx2torch.converter
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from runner.errors import InstanceError
from runner.files import read_bytes
from runner.network.convert import batchable
from runner.network.evaluate import evaluate
from runner.network.foreign import foreign
from runner.network.graph import Graph
from runner.network.lirpa import bounded_module
from runner.network.prepared import write_prepared
from runner.network.runtime import OnnxRuntime
from runner.network.translate import graph_of
from runner.vocabulary import Cause

# Inference would copy every weight several times, and a rewritten network has its shapes.
onnx2torch.converter.safe_shape_inference = lambda model: model

_TOLERANCE = 1e-4
_SAMPLES = 4  # of each distribution


@dataclass(frozen=True)
class LoadedModule:
    """In eval mode, float32, without gradients; [B, *input_shape] to [B, *output_shape]."""

    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def load_module(path: Path) -> LoadedModule:
    """Raises InstanceError: MISSING_FILE, MALFORMED_NETWORK, UNSUPPORTED_INSTANCE (more than one
    input, output or sample) or UNSUPPORTED_OPERATOR.
    """
    network = batchable(read_bytes(path, Cause.MALFORMED_NETWORK), str(path))
    with foreign(Cause.MALFORMED_NETWORK, f"{path}: onnx2torch cannot convert it"):
        module = onnx2torch.convert(network.model)
    module = module.eval().float().requires_grad_(False)
    return LoadedModule(module, network.input_shape, network.output_shape)


def replay(
    reference: OnnxRuntime,
    forward: Callable[[Tensor], Tensor],
    input_shape: tuple[int, ...],
    points: Sequence[NDArray[np.floating]] = (),
) -> float:
    """Compares `forward` ([B, *input_shape] to [B, ...]) with ONNX Runtime on the original file.

    On random inputs and on `points` (flat), one by one and as a batch. Returns the largest
    difference relative to max(1, |outputs|). Raises InstanceError REPLAY_MISMATCH when it exceeds
    1e-4 or the number of outputs differs.
    """
    samples = _samples(int(np.prod(input_shape)), points)
    expected = np.stack([reference.run(sample) for sample in samples]).astype(np.float64)
    batch = torch.from_numpy(samples).reshape(-1, *input_shape)
    worst = 0.0
    for name, inputs in (("one by one", torch.split(batch, 1)), ("in a batch", (batch,))):
        with torch.no_grad():
            outputs = torch.cat([forward(part).reshape(len(part), -1) for part in inputs])
        difference = _difference(outputs.double().numpy(), expected)
        if not difference <= _TOLERANCE:
            raise InstanceError(
                Cause.REPLAY_MISMATCH,
                f"{reference.path}: the loaded network differs from ONNX Runtime by "
                f"{difference:.3g} relative ({name}), more than {_TOLERANCE:g}; "
                "its bounds would not be those of the file",
            )
        worst = max(worst, difference)
    return worst


def _samples(inputs: int, points: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    rows = (
        generator.standard_normal((_SAMPLES, inputs)),
        generator.uniform(size=(_SAMPLES, inputs)),
        *(np.reshape(point, (1, inputs)) for point in points),
    )
    return np.concatenate(rows).astype(np.float32)


def _difference(outputs: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    if outputs.shape != expected.shape:
        return float("inf")
    scale = np.maximum(1, np.abs(expected).max(axis=1, keepdims=True))
    with np.errstate(invalid="ignore"):  # infinite minus infinite: not a number, not equal
        return float((np.abs(outputs - expected) / scale).max())


def prepare(network: Path, prepared: Path) -> Graph:
    """Converts a network once for all ranks: its bound graph and weights in one file.

    The torch module and the graph itself are both replayed. Raises InstanceError as load_module,
    replay and graph_of do, and MALFORMED_NETWORK where a weight is no finite number.
    """
    loaded = load_module(network)
    example = torch.zeros(2, *loaded.input_shape)  # of two: the batch dimension shows
    graph, tensors = graph_of(bounded_module(loaded.module, example, str(network)), str(network))
    _check_finite(tensors, network)
    reference = OnnxRuntime(network)
    replay(reference, loaded.module, loaded.input_shape)
    replay(reference, lambda x: evaluate(graph, tensors, x), loaded.input_shape)
    write_prepared(prepared, graph, tensors)
    return graph


def _check_finite(tensors: Mapping[str, Tensor], network: Path) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InstanceError(
                Cause.MALFORMED_NETWORK,
                f"{network}: the values of {name} are not all finite numbers; "
                "download or export it again",
            )
