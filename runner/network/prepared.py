"""The prepared network: one safetensors file, the graph as JSON in its metadata."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from runner.errors import InstanceError
from runner.network.graph import Graph, Node, Op
from runner.vocabulary import Cause

if TYPE_CHECKING:  # the scheduler reads graphs, and never imports torch
    from torch import Tensor

_FORMAT = "vnncomp-runner-1"


def write_prepared(path: Path, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
    """Writes all or nothing: readers see the old file or the whole new one."""
    from safetensors.torch import save_file

    metadata = {"format": _FORMAT, "graph": json.dumps(dataclasses.asdict(graph))}
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    try:
        save_file(dict(tensors), temporary, metadata)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_graph(path: Path) -> Graph:
    """Raises InstanceError: MISSING_FILE, or MALFORMED_NETWORK for a file of another kind."""
    with _opened(path, "numpy") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != _FORMAT:
        raise InstanceError(
            Cause.MALFORMED_NETWORK, f"{path}: not a prepared network of this version; prepare it"
        )
    graph = json.loads(metadata["graph"])
    return Graph(tuple(_node(fields) for fields in graph["nodes"]), graph["output"])


def _node(fields: dict[str, Any]) -> Node:
    return Node(
        name=fields["name"],
        op=Op(fields["op"]),
        inputs=tuple(fields["inputs"]),
        shape=tuple(fields["shape"]),
        attributes={
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields["attributes"].items()
        },
        parameters=fields["parameters"],
    )


def _opened(path: Path, framework: str) -> Any:
    try:
        return safe_open(path, framework=framework)
    except FileNotFoundError as error:
        raise InstanceError(
            Cause.MISSING_FILE, f"{path}: no such file; prepare the network"
        ) from error
    except SafetensorError as error:
        raise InstanceError(
            Cause.MALFORMED_NETWORK, f"{path}: damaged ({error}); prepare the network again"
        ) from error


class Weights:
    """The tensors of a prepared network, each read from the file only when asked for."""

    def __init__(self, path: Path) -> None:
        self._file = _opened(path, "pt")

    def __enter__(self) -> Weights:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        return self._copy(self._file.get_tensor(name))

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """Columns start:stop of dimension 1, contiguous; nothing else of the tensor is kept."""
        return self._copy(self._file.get_slice(name)[:, start:stop])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows start:stop of dimension 0, contiguous; nothing else of the tensor is kept."""
        return self._copy(self._file.get_slice(name)[start:stop])

    @staticmethod
    def _copy(view: Tensor) -> Tensor:
        """safetensors gives views of the mapped file, which keep the whole tensor mapped."""
        import torch

        return view.clone(memory_format=torch.contiguous_format)


def open_weights(path: Path) -> Weights:
    """Use it in a `with`. Raises InstanceError: MISSING_FILE or MALFORMED_NETWORK."""
    return Weights(path)
