"""Fewer nodes for the same network, where that rounds nothing and hides no cancellation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from runner.engine.network.draft import Array
from runner.engine.network.graph import Graph, Node, Op
from runner.engine.network.moved import moved_at_once, reshaped_move, with_pieces
from runner.engine.network.rounded import Values, power_of_two


def folded(graph: Graph, tensors: dict[str, Array]) -> tuple[Graph, dict[str, Array]]:
    """A bias that is added after a product becomes the product's; a factor of two is multiplied in.

    Other AFFINE nodes stay apart, since weights times another factor are other weights. Of
    reshapes that follow each other the last remains, and moves that follow each other are one.
    """
    tensors = dict(tensors)
    nodes: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    users = Counter(name for node in graph.nodes for name in node.inputs)
    users[graph.output] += 1
    for node in graph.nodes:
        node = replace(node, inputs=tuple(_now(name, renamed) for name in node.inputs))
        if node.op is Op.AFFINE and users[node.inputs[0]] == 1:
            source = nodes[node.inputs[0]]
            if source.op in (Op.LINEAR, Op.CONV) and _fold(source, node, tensors):
                renamed[node.name] = source.name
                users[source.name] = users[node.name]
                continue
            if source.op is Op.SELECT and users[source.inputs[0]] == 1:
                before = nodes[source.inputs[0]]
                earlier = _before(source, node, before, tensors)
                if earlier is not None and _fold(before, earlier, tensors):
                    renamed[node.name] = source.name
                    users[source.name] = users[node.name]
                    continue
        if node.op is Op.SELECT:
            node = _known_as(moved_at_once(node, nodes, users, tensors), renamed, users)
        if node.op is Op.RESHAPE:
            source = nodes[node.inputs[0]]
            if source.op is Op.SELECT and users[source.name] == 1:
                node = _known_as(reshaped_move(node, source, tensors), renamed, users)
                nodes[node.name] = node
                continue
            source = nodes[source.inputs[0]] if source.op is Op.RESHAPE else source
            users[source.name] += users[node.name]
            if source.shape == node.shape:
                renamed[node.name] = source.name
                continue
            node = replace(node, inputs=(source.name,))
        nodes[node.name] = node
    output = _now(graph.output, renamed)
    graph, tensors = _reaching(replace(graph, nodes=tuple(nodes.values()), output=output), tensors)
    return with_pieces(graph, tensors), tensors


def _now(name: str, renamed: Mapping[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _known_as(node: Node, renamed: dict[str, str], users: Counter[str]) -> Node:
    """Under a name that says what it is now."""
    name = f"{node.op}_{node.name.rpartition('_')[2]}"
    if name == node.name:
        return node
    renamed[node.name] = name
    users[name] = users[node.name]
    return replace(node, name=name)


def _before(select: Node, affine: Node, source: Node, tensors: dict[str, Array]) -> Node | None:
    """What does the same to the product that all values are moved from; None where none does."""
    parameters = affine.parameters
    moved = tensors[select.parameters["index"]].reshape(-1)
    if source.op is not Op.CONV or set(parameters) != {"scale", "shift"}:
        return None
    if moved.size != source.size or not select.attributes["once"] or select.attributes["zeros"]:
        return None
    names = {role: f"{affine.name}.{role} before" for role in parameters}
    for role, name in names.items():
        values = np.broadcast_to(tensors[parameters[role]], affine.shape).reshape(-1)
        placed = np.empty_like(values)
        placed[moved] = values
        tensors[name] = placed.reshape(source.shape)
    return replace(affine, shape=source.shape, parameters=names)


def _fold(source: Node, affine: Node, tensors: dict[str, Array]) -> bool:
    """Whether scale and shift are one for each output row, powers of two, and nothing is summed.

    A bias and a shift may cancel, and then the sum hides how far rounding takes the file's network
    from it.
    """
    if set(affine.parameters) != {"scale", "shift"}:
        return False  # with errors
    scale, shift = (_of_rows(tensors[affine.parameters[r]], affine) for r in ("scale", "shift"))
    if scale is None or shift is None or not power_of_two(scale).all():
        return False
    weight, bias = (tensors[source.parameters[role]] for role in ("weight", "bias"))
    if ((bias != 0) & (shift != 0)).any():
        return False
    spread = scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    with np.errstate(all="ignore"):
        new_weight, exact = weight, True
        if (scale != 1).any():
            new_weight = (weight * spread).astype(weight.dtype)
            exact = bool((new_weight / spread == weight).all())
        new_bias = (bias * scale + shift).astype(bias.dtype)
        exact = exact and bool(((new_bias - shift) / scale == bias).all())
    if exact:
        tensors[source.parameters["weight"]] = new_weight
        tensors[source.parameters["bias"]] = new_bias
    return exact


def _of_rows(values: Array, node: Node) -> Values | None:
    """One value for each row of the node's output; None where they differ within a row."""
    rows = np.broadcast_to(values, node.shape).reshape(node.shape[0], -1)
    first: Values = rows[:, 0]
    return first if (rows == first[:, None]).all() else None


def _reaching(graph: Graph, tensors: dict[str, Array]) -> tuple[Graph, dict[str, Array]]:
    """Only what reaches the output, the input first."""
    needed = {graph.output, graph.input.name}
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    nodes = tuple(node for node in graph.nodes if node.name in needed)
    used = {name for node in nodes for name in node.parameters.values()}
    return replace(graph, nodes=nodes), {n: t for n, t in tensors.items() if n in used}
