"""Assignments to a part of a tensor whose place is computed: x[:, p:q] = v, as PyTorch writes them.

It writes the positions of the part as a grid: of each dimension all of them, or a slice of them
from p to q, put together for ScatterND. How many there are depends on the input, and so would the
shapes. Said otherwise, a value is v where its position lies between p and q, and x elsewhere; that
has a shape, and bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper

from runner.engine.network.draft import Array, Draft, replace_all

# They change no value where all are equal.
_SHAPING = frozenset({"Expand", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class _Slice:
    """Of positions 0 to `length` along a dimension; `start` and `stop` are names."""

    length: int
    start: str
    stop: str


def place_slices(draft: Draft) -> bool:
    """Writes each ScatterND of that form as a choice between two values; whether there was one."""
    makers = {name: node for node in draft.graph.node for name in node.output}
    nodes: list[NodeProto] = []
    found = False
    for node in draft.graph.node:
        chosen = _chosen(node, makers, draft) if node.op_type == "ScatterND" else None
        found = found or chosen is not None
        nodes += [node] if chosen is None else chosen
    replace_all(draft.graph.node, nodes)
    return found


def _chosen(
    node: NodeProto, makers: Mapping[str, NodeProto], draft: Draft
) -> list[NodeProto] | None:
    """None for any other ScatterND."""
    data, indices, updates = node.input
    value = draft.constants.get(_source(updates, makers))
    whole = draft.constants.get(data)
    slices = _slices(indices, makers, draft)
    if value is None or whole is None or slices is None or node.attribute:
        return None
    lengths = [part if isinstance(part, int) else part.length for part in slices]
    if list(whole.shape) != lengths or not value.size or (value != value.reshape(-1)[0]).any():
        return None
    prefix, made, inside = node.output[0], [], []
    for axis, part in enumerate(slices):
        if isinstance(part, _Slice):
            shape = [-1 if other == axis else 1 for other in range(len(slices))]
            name = f"{prefix} of dimension {axis}"
            made += _between(part, name, np.arange(part.length).reshape(shape), draft)
            inside.append(name)
    for number, name in enumerate(inside[1:]):
        joined = f"{prefix} inside {number}"
        made.append(helper.make_node("And", [inside[0], name], [joined]))
        inside[0] = joined
    placed = f"{prefix} value"
    draft.constants[placed] = value.reshape(-1)[:1]
    choice = [inside[0], placed, data]
    return [*made, helper.make_node("Where", choice, [prefix], node.name)]


def _between(part: _Slice, name: str, places: Array, draft: Draft) -> list[NodeProto]:
    """Whether each of `places` lies in a slice, whose ends count from behind where negative."""
    constants = {"zero": np.zeros(1, np.int64), "length": np.full(1, part.length), "places": places}
    draft.constants |= {f"{name} {role}": value for role, value in constants.items()}
    zero, length, place = (f"{name} {role}" for role in constants)
    made = []
    for end in ("start", "stop"):
        given, to = getattr(part, end), f"{name} {end}"
        made += [
            helper.make_node("Less", [given, zero], [f"{to} behind"]),
            helper.make_node("Add", [given, length], [f"{to} counted"]),
            helper.make_node("Where", [f"{to} behind", f"{to} counted", given], [to]),
            helper.make_node("Less", [place, to], [f"{to} above"]),
        ]
    made.append(helper.make_node("Not", [f"{name} start above"], [f"{name} begun"]))
    made.append(helper.make_node("And", [f"{name} begun", f"{name} stop above"], [name]))
    return made


def _source(name: str, makers: Mapping[str, NodeProto]) -> str:
    while name in makers and makers[name].op_type in _SHAPING:
        name = makers[name].input[0]
    return name


def _slices(
    indices: str, makers: Mapping[str, NodeProto], draft: Draft
) -> list[_Slice | int] | None:
    """Of each dimension, or how many positions it has, all of which are meant."""
    grid = makers.get(indices)
    if grid is None or grid.op_type != "Concat":
        return None
    parts: list[_Slice | int] = []
    for behind, name in zip(range(len(grid.input) - 1, -1, -1), grid.input, strict=True):
        part = _positions(name, behind, makers, draft)
        if part is None:
            return None
        parts.append(part)
    return parts if any(isinstance(part, _Slice) for part in parts) else None


def _positions(
    name: str, behind: int, makers: Mapping[str, NodeProto], draft: Draft
) -> _Slice | int | None:
    """Those of a dimension, repeated along all others; there are `behind` of these after it."""
    for kind in ("Unsqueeze", "Expand"):
        node = makers.get(name)
        if node is None or node.op_type != kind:
            return None
        name = node.input[0]
    if name in draft.constants:
        constant = draft.constants[name]
        shape = (constant.size, *(1,) * behind)
        leading = constant.shape[: max(0, constant.ndim - behind - 1)]
        along = constant.shape[len(leading) :] == shape and set(leading) <= {1}
        return constant.size if along and _counts(constant) else None
    node = makers.get(name)
    if node is not None and node.op_type == "Reshape":
        target = draft.constants.get(node.input[1])
        if target is None or target.tolist() != [-1, *(1,) * behind]:
            return None
        node = makers.get(node.input[0])
    elif behind:
        return None
    return None if node is None else _slice(node, draft)


def _slice(node: NodeProto, draft: Draft) -> _Slice | None:
    """Of all positions, in steps of one."""
    if node.op_type != "Slice" or len(node.input) < 3:
        return None
    data, start, stop, *rest = node.input
    known = draft.constants.get(data)
    if known is None or known.ndim != 1 or not _counts(known):
        return None
    for name, wanted in zip(rest, (0, 1), strict=False):  # its only dimension, and its step
        value = draft.constants.get(name)
        if value is None or value.reshape(-1).tolist() != [wanted]:
            return None
    return _Slice(known.size, start, stop)


def _counts(values: Array) -> bool:
    return bool((values.reshape(-1) == np.arange(values.size)).all())
