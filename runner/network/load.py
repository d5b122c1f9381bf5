"""An ONNX file as the bound graph of all strategies, and as a torch module for auto_LiRPA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx2torch
import onnx2torch.converter
import torch
from numpy.typing import NDArray
from onnx import version_converter
from torch import Tensor, nn

from runner.network.convert import Batchable, batchable
from runner.network.fold import folded
from runner.network.foreign import foreign
from runner.network.graph import Graph
from runner.network.onnx_file import DOMAINS
from runner.network.prepared import write_prepared
from runner.network.replay import Replay
from runner.network.runtime import OnnxRuntime
from runner.network.translate import translated
from runner.vocabulary import Cause

# Inference would copy every weight several times, and a rewritten network has its shapes.
onnx2torch.converter.safe_shape_inference = lambda model: model

# onnx2torch knows every supported operator in each of these versions.
_OPSETS = range(9, 16)


@dataclass(frozen=True)
class LoadedModule:
    """In eval mode, of the network's own type (float16 as float32), without gradients.

    [B, *input_shape] to [B, *output_shape].
    """

    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


@dataclass(frozen=True)
class LoadedGraph:
    """The bound graph with its parameters."""

    graph: Graph
    tensors: dict[str, Tensor]


def load_graph(path: Path) -> LoadedGraph:
    """Raises InstanceError as `batchable` and `translated` do."""
    return _graph_of(batchable(path), path)


def _graph_of(network: Batchable, path: Path) -> LoadedGraph:
    graph, arrays = folded(*translated(network, path))
    tensors = {name: torch.from_numpy(np.array(a, order="C")) for name, a in arrays.items()}
    return LoadedGraph(graph, tensors)


def load_module(path: Path) -> LoadedModule:
    """For auto_LiRPA; replayed. Raises InstanceError as `load_graph` does, and UNSUPPORTED_INSTANCE
    where onnx2torch cannot convert the network.
    """
    network = batchable(path)
    loaded = _graph_of(network, path)
    dtype = getattr(torch, network.dtype)
    cannot = f"{path}: onnx2torch, which the strategy lirpa needs, cannot convert it"
    with foreign(Cause.UNSUPPORTED_INSTANCE, cannot):
        model = network.model
        opset = next(o.version for o in model.opset_import if o.domain in DOMAINS)
        if opset not in _OPSETS:
            target = min(max(opset, _OPSETS[0]), _OPSETS[-1])
            model = version_converter.convert_version(model, target)
        module = onnx2torch.convert(model).eval().to(dtype).requires_grad_(False)
    Replay(OnnxRuntime(path), loaded.graph, loaded.tensors).check(module, dtype)
    return LoadedModule(module, network.input_shape, network.output_shape)


def prepare(
    network: Path,
    prepared: Path,
    points: Callable[[Graph], Sequence[NDArray[np.floating]]] = lambda graph: (),
) -> Graph:
    """Converts a network once for all ranks: its bound graph and weights in one file.

    `points`: where it is replayed, beside random inputs; may raise. Raises InstanceError as
    `load_graph` and `Replay` do.
    """
    loaded = load_graph(network)
    at = points(loaded.graph)
    Replay(OnnxRuntime(network), loaded.graph, loaded.tensors, at).check_graph()
    write_prepared(prepared, loaded.graph, loaded.tensors)
    return loaded.graph
