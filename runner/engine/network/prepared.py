"""The prepared network: one safetensors file, the graph as JSON in its metadata.

Linear and Conv weights lie in their column blocks, so that a rank reads its own and no others.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.contract.whole import replaced
from runner.engine.network.blocks import Cut, cut_weights, weights_of
from runner.engine.network.graph import Dtype, Graph, Node, Op

if TYPE_CHECKING:  # the scheduler reads graphs, and never imports torch
    from torch import Tensor

_FORMAT = "vnncomp-runner-5"


def write_prepared(path: Path, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
    """Writes all or nothing: readers see the old file or the whole new one.

    tensors: every parameter of the graph, weights whole.
    """
    from safetensors.torch import save_file

    cuts = cut_weights(weights_of(graph, lambda name: tuple(tensors[name].shape)))
    stored = dict(tensors)
    for weight in {cut.weight for cut in cuts}:
        del stored[weight]
    for cut in cuts:
        stored[_key(cut)] = tensors[cut.weight][:, cut.start : cut.stop]
    metadata = {
        "format": _FORMAT,
        "graph": json.dumps(dataclasses.asdict(graph)),
        "cuts": json.dumps([dataclasses.astuple(cut) for cut in cuts]),
    }
    with replaced(path, durable=False) as draft:
        save_file(_apart(stored), draft, metadata)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each whole and in memory of its own, as safetensors wants them."""
    apart, taken = {}, set()
    for name, tensor in tensors.items():
        whole = tensor.contiguous()
        memory = whole.untyped_storage().data_ptr()
        shared = memory in taken or whole.untyped_storage().nbytes() > whole.nbytes
        apart[name] = whole.clone() if shared else whole
        taken.add(memory)
    return apart


def read_graph(path: Path) -> Graph:
    """Raises InstanceError: MISSING_FILE, or MALFORMED_NETWORK for a file of another kind."""
    graph = json.loads(_metadata(path)["graph"])
    nodes = tuple(_node(fields) for fields in graph["nodes"])
    lowest = graph["lowest"] and Dtype(graph["lowest"])
    return Graph(nodes, graph["output"], Dtype(graph["dtype"]), lowest)


def _key(cut: Cut) -> str:
    return f"{cut.weight}[:, {cut.start}:{cut.stop}]"


def _metadata(path: Path) -> dict[str, str]:
    with _opened(path, "numpy") as file:
        metadata: dict[str, str] = file.metadata() or {}
    if metadata.get("format") != _FORMAT:
        raise InstanceError(
            Cause.MALFORMED_NETWORK, f"{path}: not a prepared network of this version; prepare it"
        )
    return metadata


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


class PreparedWeights:
    """The tensors of a prepared network, each read from the file only when asked for.

    Raises InstanceError: MISSING_FILE or MALFORMED_NETWORK.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cuts: dict[str, list[Cut]] = {}
        for fields in json.loads(_metadata(path)["cuts"]):
            cut = Cut(*fields)
            self._cuts.setdefault(cut.weight, []).append(cut)

    def shape(self, name: str) -> tuple[int, ...]:
        cuts = self._cuts.get(name)
        with _opened(self._path, "numpy") as file:
            if cuts is None:
                return tuple(file.get_slice(name).get_shape())
            rows, _, *kernel = file.get_slice(_key(cuts[0])).get_shape()
        return (rows, cuts[-1].stop, *kernel)

    def tensor(self, name: str) -> Tensor:
        """The whole tensor."""
        if name in self._cuts:
            return self.columns(name, 0, self._cuts[name][-1].stop)
        return self._read(name)

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """Columns start to stop (dimension 1) of a weight; nothing else of it is kept."""
        import torch

        parts = [
            self._read(_key(cut))[:, max(start - cut.start, 0) : stop - cut.start]
            for cut in self._cuts[name]
            if cut.start < stop and start < cut.stop
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _read(self, key: str) -> Tensor:
        """A copy: safetensors gives a view of the mapped file.

        The file is opened anew each time, so that the pages of what was read are unmapped again.
        """
        with _opened(self._path, "pt") as file:
            copy: Tensor = file.get_tensor(key).clone()
        return copy
