"""Operators that are made of exponentials, squares, sums and quotients."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import NodeProto

from runner.engine.network.graph import Node, Op
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation.builder import ONE, ZERO, Builder
from runner.engine.network.translation.registry import Translation

# Differences between all pairs of a softmax, each of which has bounds of its own.
_MOST_PAIRS = 1 << 20


def _softmax(build: Builder, node: NodeProto) -> Node:
    """1 / sum of exp(x_j - x_i): no exponential of a large value, and no product."""
    x, shape = build.source(node), build.file_shape(node.input[0])
    opset = max(o.version for o in build.network.draft.model.opset_import if not o.domain)
    axis = build.attribute(node, "axis", -1 if opset >= 13 else 1) % len(shape)
    if opset < 13:  # over all axes from this one on
        shape, axis = (prod(shape[:axis]), prod(shape[axis:])), 1
    count = shape[axis]
    if x.size * count > _MOST_PAIRS:
        raise build.refused(node, f"it has {x.size * count:,} pairs, more than {_MOST_PAIRS:,}")
    index = np.moveaxis(np.arange(x.size).reshape(shape), axis, -1)
    mine, other = np.broadcast_arrays(index[..., :, None], index[..., None, :])
    differences = build.minus(
        build.selected(x, other, (other.size,)), build.selected(x, mine, (mine.size,))
    )
    total = build.summed(build.function(Op.EXP, differences), count)
    shares = build.function(Op.RECIPROCAL, total)
    back = np.moveaxis(np.arange(x.size).reshape(index.shape), -1, axis)
    return build.selected(shares, back, (x.size,))


def _layer_normalized(build: Builder, node: NodeProto) -> Node:
    if any(node.output[1:]):
        raise build.refused(node, "only its first output is")
    shape = build.file_shape(node.input[0])
    axis = build.attribute(node, "axis", -1) % len(shape)
    count = prod(shape[axis:])
    x = build.reshaped(build.source(node), (prod(shape[:axis]), count))
    share = Rounded.exact(np.full(1, count)).reciprocal()
    spread = np.repeat(np.arange(x.shape[0]), count).reshape(x.shape)
    mean = build.affine(build.summed(x, count), share, ZERO, node)
    centred = build.minus(x, build.selected(mean, spread))
    squares = build.summed(build.function(Op.SQUARE, centred), count)
    epsilon = Rounded.exact(np.full(1, np.float32(build.attribute(node, "epsilon", 1e-5))))
    variance = build.affine(squares, share, epsilon, node)
    inverse = build.function(Op.RECIPROCAL, build.function(Op.SQRT, variance))
    normal = build.times(centred, build.selected(inverse, spread))
    gain, offset = (
        build.rounded(node, i).map(lambda v: np.broadcast_to(v, shape[axis:]).reshape(-1))
        if build.has(node, i)
        else otherwise
        for i, otherwise in ((1, ONE), (2, ZERO))
    )
    return build.affine(normal, gain, offset, node)


TRANSLATIONS: dict[str, Translation] = {
    "LayerNormalization": _layer_normalized,
    "Softmax": _softmax,
}
