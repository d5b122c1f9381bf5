"""Values that are moved several times are moved once; and which of them stay among themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import gcd

import numpy as np

from runner.engine.network.draft import Array
from runner.engine.network.graph import Graph, Node, Op


def moved_at_once(
    node: Node, nodes: Mapping[str, Node], users: Counter[str], tensors: dict[str, Array]
) -> Node:
    """A SELECT of what another one moved, as one of what that was given, also through reshapes; a
    RESHAPE where all values come back to their places. `users`: how often each node is read.
    """
    index, alone = tensors[node.parameters["index"]], True
    source = nodes[node.inputs[0]]
    while source.op in (Op.SELECT, Op.RESHAPE):
        alone = alone and users[source.name] == 1
        if source.op is Op.SELECT:
            before = np.append(tensors[source.parameters["index"]].reshape(-1), -1)
            index = before[index]
        source = nodes[source.inputs[0]]
    if source.name == node.inputs[0]:
        return node
    if not alone:
        users[source.name] += 1
    if index.size == source.size and (index.reshape(-1) == np.arange(index.size)).all():
        return Node(node.name, Op.RESHAPE, (source.name,), node.shape)
    return _move(node, source, index, tensors)


def reshaped_move(node: Node, select: Node, tensors: dict[str, Array]) -> Node:
    """A SELECT and the RESHAPE behind it, as one."""
    index = tensors[select.parameters["index"]]
    moved = replace(node, inputs=select.inputs)
    name = f"{node.name}.index"
    tensors[name] = index.reshape(node.shape)
    return replace(moved, op=Op.SELECT, attributes=select.attributes, parameters={"index": name})


def _move(node: Node, source: Node, index: Array, tensors: dict[str, Array]) -> Node:
    used = index[index >= 0]
    name = f"{node.name}.index of {source.name}"
    tensors[name] = index.reshape(node.shape)
    attributes = {"once": len(np.unique(used)) == used.size, "zeros": used.size < index.size}
    return replace(node, inputs=(source.name,), attributes=attributes, parameters={"index": name})


def with_pieces(graph: Graph, tensors: Mapping[str, Array]) -> Graph:
    """Each SELECT with `pieces`: into how many equal parts its values and those that it is given
    can be cut at most, each part being moved within itself, like heads of an attention.
    """
    sizes = {node.name: node.size for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        if node.op is Op.SELECT:
            index = tensors[node.parameters["index"]].reshape(-1)
            pieces = _pieces(index, sizes[node.inputs[0]], node.shape)
            node = replace(node, attributes={**node.attributes, "pieces": pieces})
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _pieces(index: Array, inputs: int, shape: tuple[int, ...]) -> int:
    """Parts are whole along the first dimension."""
    if not index.size or not shape:
        return 1
    outputs = np.arange(index.size)
    most = gcd(shape[0], inputs)
    for pieces in range(most, 1, -1):
        if most % pieces:
            continue
        mine = outputs * pieces // index.size
        if ((index < 0) | (index * pieces // inputs == mine)).all():
            return pieces
    return 1
