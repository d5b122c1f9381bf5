"""Changes of type: what becomes an integer is cut or rounded, and is a whole number afterwards."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper

from runner.engine.network.draft import Array
from runner.engine.network.graph import Node
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation.builder import ONE, ZERO, Builder
from runner.engine.network.translation.pointwise import greatest_of, least_of
from runner.engine.network.translation.registry import Translation
from runner.engine.network.translation.value_kinds import kind_of

_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)


def _cast(build: Builder, node: NodeProto) -> Node:
    x, before = build.source(node), kind_of(build, node.input[0])
    wanted = build.attribute(node, "to", 0)
    if wanted in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return x  # in real arithmetic; what it rounds is compared with ONNX Runtime
    if wanted in _FLOATS:
        raise build.refused(node, "it changes the precision of a computed value")
    after = helper.tensor_dtype_to_np_dtype(wanted)
    if after == np.bool_:
        if before == np.bool_:
            return x
        zero = build.applied("WholeZero" if before.kind in "iu" else "Zero", x)
        return build.affine(zero, -ONE, ONE, node)
    if after.kind not in "iu":
        raise build.refused(node, f"it makes {after} of a computed value")
    if before == np.bool_:
        return x
    limits = np.iinfo(after)
    low, high = float(limits.min), float(limits.max)
    if before.kind in "iu":
        inner = np.iinfo(before)
        if limits.min <= inner.min and inner.max <= limits.max:
            return x
        return build.applied("Whole", x, low=low, high=high)
    return build.applied("Truncated", x, low=low, high=high)


def _of_axis(build: Builder, node: NodeProto, value: Array) -> Array:
    """A scale or a zero point of one value, or of one for each index of an axis."""
    shape = build.file_shape(node.input[0])
    if value.size == 1:
        return value.reshape(1)
    if value.ndim != 1:
        raise build.refused(node, "its scale is of blocks")
    axis = build.attribute(node, "axis", 1) % len(shape)
    spread = np.broadcast_to(value.reshape(-1, *(1 for _ in shape[axis + 1 :])), shape)
    return spread.reshape(build.shape(node))


def _scale_and_zero(build: Builder, node: NodeProto) -> tuple[Rounded, Array]:
    scale = Rounded.exact(_of_axis(build, node, build.constant(node, 1)))
    if not build.has(node, 2):
        return scale, np.zeros(1, np.uint8)
    return scale, _of_axis(build, node, build.constant(node, 2))


def _quantized(build: Builder, node: NodeProto) -> Node:
    """round(x / scale) + zero, between the limits of its type."""
    scale, zero = _scale_and_zero(build, node)
    if zero.dtype.kind not in "iu":
        raise build.refused(node, f"it makes {zero.dtype} of a computed value")
    limits = np.iinfo(zero.dtype)
    whole = build.applied("Round", build.affine(build.source(node), scale.reciprocal(), ZERO, node))
    moved = build.affine(whole, ONE, Rounded.exact(zero), node)
    low, high = (Rounded.exact(np.full(1, float(end))) for end in (limits.min, limits.max))
    return least_of(build, greatest_of(build, moved, low, node), high, node)


def _real_again(build: Builder, node: NodeProto) -> Node:
    """(x - zero) scale."""
    scale, zero = _scale_and_zero(build, node)
    moved = build.affine(build.source(node), ONE, -Rounded.exact(zero), node)
    return build.affine(moved, scale, ZERO, node)


TRANSLATIONS: dict[str, Translation] = {
    "Cast": _cast,
    "DequantizeLinear": _real_again,
    "QuantizeLinear": _quantized,
}
