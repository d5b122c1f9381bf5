"""An ONNX file as the bound graph of all strategies, and as a torch module for auto_LiRPA."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from runner.contract.vocabulary import Cause
from runner.engine.network.draft import Array
from runner.engine.network.graph import Dtype, Graph
from runner.engine.network.graph_replay import replay
from runner.engine.network.library_errors import foreign
from runner.engine.network.module import GraphModule
from runner.engine.network.network_file import NetworkFile, read_network_file
from runner.engine.network.onnx_graph import onnx_graph, unforeseen
from runner.engine.network.prepared import write_prepared
from runner.problem.onnx_runtime import OnnxRuntime


@dataclass(frozen=True)
class LoadedModule:
    """In eval mode, in `dtype`, without gradients; [B, *input_shape] to [B, *output_shape]."""

    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: Dtype


@dataclass(frozen=True)
class LoadedGraph:
    """The bound graph with its parameters."""

    graph: Graph
    tensors: dict[str, Tensor]


def load_graph(path: Path, file: NetworkFile | None = None) -> LoadedGraph:
    """`file`: what `path` names, where it is read. Raises InstanceError as `onnx_graph` does."""
    graph, arrays = onnx_graph(path, file)
    return LoadedGraph(graph, {name: _tensor(array) for name, array in arrays.items()})


def _tensor(array: Array) -> Tensor:
    """A view, which a large network has room for; nobody writes to what the file has."""
    array = np.asarray(array)  # numpy's sums of scalars are none
    if any(step < 0 for step in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot be written
        return torch.from_numpy(array)


def load_module(path: Path) -> LoadedModule:
    """For auto_LiRPA. Raises InstanceError as `load_graph` does; `prepare` replays the graph."""
    loaded = load_graph(path)
    graph = loaded.graph
    own = {n: t.clone(memory_format=torch.contiguous_format) for n, t in loaded.tensors.items()}
    module = GraphModule(graph, own)
    return LoadedModule(module, graph.input.shape, graph.node(graph.output).shape, graph.dtype)


def prepare(
    network: Path,
    prepared: Path,
    points: Callable[[Graph], Sequence[NDArray[np.floating]]] = lambda graph: (),
) -> Graph:
    """Converts a network once for all ranks: its bound graph and weights in one file.

    `points`: where it is replayed, beside random inputs; may raise. Raises InstanceError as
    `load_graph` and `replay` do, and MALFORMED_NETWORK for what no check has foreseen.
    """
    with foreign(Cause.MALFORMED_NETWORK, unforeseen(network)):
        file = read_network_file(network)
        loaded = load_graph(network, file)
        reference = OnnxRuntime(network, optimize=False, content=file.content, weights=file.weights)
        replay(reference, loaded.graph, loaded.tensors, points(loaded.graph))
    write_prepared(prepared, loaded.graph, loaded.tensors)
    return loaded.graph
