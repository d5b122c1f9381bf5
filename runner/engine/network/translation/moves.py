"""Operators that only move values: ONNX Runtime moves their positions, and so says where each goes.

So slices, transpositions, paddings and all else of the kind are one operator of the bound graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from runner.contract.vocabulary import Cause
from runner.engine.network.draft import Array
from runner.engine.network.graph import Node, Op
from runner.engine.network.library_errors import foreign
from runner.engine.network.rounded import Rounded, Values
from runner.engine.network.translation.builder import ONE, Builder
from runner.engine.network.translation.registry import Translation
from runner.engine.network.translation.resized import linear
from runner.problem.onnx_runtime import session_of

# Inputs that values come from; all others say where they go, and are constants.
_VALUES = {"Pad": (0, 2), "ScatterElements": (0, 2), "ScatterND": (0, 2)}
# ONNX Runtime has no float64 of these. float32 counts up to 2**24.
_FLOAT32 = frozenset({"Resize", "Upsample"})
_MOST_POSITIONS = 1 << 24


def _moved(build: Builder, node: NodeProto) -> Sequence[Node]:
    """What each output is made of."""
    _check(build, node)
    computed = {
        node.input[index]: value
        for index in _values_of(node)
        if build.has(node, index) and (value := build.computed(node, index)) is not None
    }
    # Counted from 1: what comes from nowhere is 0.
    counted: dict[str, Array] = {}
    next_ = 1
    for name, value in computed.items():
        shape = build.file_shape(name)
        counted[name] = np.arange(next_, next_ + value.size).reshape(shape)
        next_ += value.size
    positions = _run(build, node, counted, _nothing)
    zeros = {name: np.zeros_like(v) for name, v in counted.items()}
    shifts = _run(build, node, zeros, _value)
    rounded = any(name in build.network.draft.rounded for name in node.input)
    errors = _run(build, node, zeros, _error) if rounded else [np.zeros_like(v) for v in shifts]
    x = _joined(build, list(computed.values()))
    made = []
    for found, shift, error in zip(positions, shifts, errors, strict=True):
        moved = build.selected(x, found.astype(np.int64) - 1)
        if shift.any() or error.any():
            moved = build.affine(moved, ONE, Rounded(shift, error), node)
        made.append(moved)
    return made


def _values_of(node: NodeProto) -> Sequence[int]:
    return range(len(node.input)) if node.op_type == "Concat" else _VALUES.get(node.op_type, (0,))


def _check(build: Builder, node: NodeProto) -> None:
    values = _values_of(node)
    for index, name in enumerate(node.input):
        if name and index not in values and build.computed(node, index) is not None:
            raise build.refused(node, f"its input {name!r} is computed, not constant")
    mode = build.attribute(node, "mode", b"nearest")
    if node.op_type in _FLOAT32 and mode != b"nearest":
        raise build.refused(node, f"mode {mode.decode()}; nearest and linear are")
    if build.attribute(node, "reduction", b"none") != b"none":
        raise build.refused(node, "it reduces values that meet")


def _joined(build: Builder, values: Sequence[Node]) -> Node:
    """All values in one, flat."""
    flat = [build.reshaped(value, (value.size,)) for value in values]
    if len(flat) == 1:
        return flat[0]
    return build.append(Op.CONCAT, flat, (sum(value.size for value in flat),), {"axis": 0})


def _nothing(constant: Rounded) -> Values:
    return np.zeros_like(constant.value)


def _value(constant: Rounded) -> Values:
    return constant.value


def _error(constant: Rounded) -> Values:
    return constant.error


def _run(
    build: Builder,
    node: NodeProto,
    computed: dict[str, Array],
    constants: Callable[[Rounded], Values],
) -> list[Array]:
    """The node alone on ONNX Runtime; `constants`: what it takes of those that are values."""
    dtype = np.dtype(np.float32 if node.op_type in _FLOAT32 else np.float64)
    if dtype == np.float32 and sum(v.size for v in computed.values()) >= _MOST_POSITIONS:
        raise build.refused(node, "it has too many values")
    given = {name: value.astype(dtype) for name, value in computed.items()}
    initializers = {}
    for index, name in enumerate(node.input):
        if name and name not in given:
            is_value = index in _values_of(node)
            value = (
                constants(build.rounded(node, index)) if is_value else build.constant(node, index)
            )
            value = value.astype(dtype) if is_value else np.ascontiguousarray(value)
            initializers[name] = numpy_helper.from_array(value, name)
    node = NodeProto.FromString(node.SerializeToString())
    node.output[:] = [name or f"unnamed {index}" for index, name in enumerate(node.output)]
    for attribute in node.attribute:
        if attribute.name == "value" and constants is not _value:  # of old paddings
            attribute.f = 0.0
    element = helper.np_dtype_to_tensor_dtype(dtype)
    graph = helper.make_graph(
        [node],
        "positions",
        [helper.make_tensor_value_info(name, element, v.shape) for name, v in given.items()],
        [helper.make_tensor_value_info(name, element, None) for name in node.output],
        list(initializers.values()),
    )
    model = helper.make_model(
        graph, opset_imports=build.network.draft.model.opset_import, ir_version=8
    )
    fails = f"{build.network.draft.path}: {node.op_type} ({node.output[0]!r}) of positions fails"
    with foreign(Cause.UNSUPPORTED_OPERATOR, fails):
        session = session_of(model.SerializeToString())
        return [np.asarray(value) for value in session.run(None, given)]


def _resized(build: Builder, node: NodeProto) -> Node | Sequence[Node]:
    if build.attribute(node, "mode", b"nearest") == b"linear":
        return linear(build, node)
    return _moved(build, node)


def _concat(build: Builder, node: NodeProto) -> Node | Sequence[Node]:
    """Of samples that are computed and whole, joined as they are."""
    shapes = [build.file_shape(name) for name in node.input]
    rank = len(shapes[0])
    axis = int(build.attribute(node, "axis", 0)) % rank
    nodes = [build.computed(node, index) for index in range(len(node.input))]
    samples = [node for node in nodes if node is not None]
    batched = rank > 1 and all(shape[0] == 1 for shape in shapes) and axis > 0
    if len(samples) < len(nodes) or not (batched or (rank == 1 and axis == 0)):
        return _moved(build, node)
    return build.append(Op.CONCAT, samples, build.shape(node), {"axis": axis - batched})


def _kept(build: Builder, node: NodeProto) -> Node:
    """Values keep their order, whatever shape they are given."""
    return build.source(node)


def _expand(build: Builder, node: NodeProto) -> Node:
    after = build.file_shape(node.output[0])
    before = build.file_shape(node.input[0])
    return build.expanded(build.source(node), before, after, build.shape(node))


_MOVES = (
    *("DepthToSpace", "Gather", "GatherElements", "GatherND", "Pad", "ScatterElements"),
    *("ScatterND", "Slice", "SpaceToDepth", "Split", "Tile", "Transpose", "Trilu"),
)
_KEPT = ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
TRANSLATIONS: dict[str, Translation] = {
    **dict.fromkeys(_MOVES, _moved),
    **dict.fromkeys(_KEPT, _kept),
    **dict.fromkeys(("Resize", "Upsample"), _resized),
    "Concat": _concat,
    "Expand": _expand,
}
