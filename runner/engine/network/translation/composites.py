"""Operators that are made of exponentials, squares, sums and quotients."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np
from onnx import NodeProto

from runner.engine.network.draft import Array
from runner.engine.network.graph import Node, Op
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation.builder import ONE, ZERO, Builder
from runner.engine.network.translation.registry import Translation

# Of a square root and a product in float64.
_ROUNDING = 1e-12
# Differences between all pairs of a softmax, each of which has bounds of its own.
_MOST_PAIRS = 1 << 20


def _softmax(build: Builder, node: NodeProto) -> Node:
    """1 / sum of exp(x_j - x_i): no exponential of a large value, and no product."""
    total, back = _exponentials(build, node)
    shares = build.function(Op.RECIPROCAL, total)
    return build.selected(shares, back, (back.size,))


def _log_softmax(build: Builder, node: NodeProto) -> Node:
    """-log of the same sum."""
    total, back = _exponentials(build, node)
    logarithms = build.affine(build.applied("Log", total), -ONE, ZERO, node)
    return build.selected(logarithms, back, (back.size,))


def _exponentials(build: Builder, node: NodeProto) -> tuple[Node, Array]:
    """The sum over j of exp(x_j - x_i) of each i, and where each value of x has its own."""
    x, shape = build.source(node), build.file_shape(node.input[0])
    opset = max(o.version for o in build.network.draft.model.opset_import if not o.domain)
    axis = build.attribute(node, "axis", -1 if opset >= 13 else 1) % len(shape)
    if opset < 13:  # over all axes from this one on
        shape, axis = (prod(shape[:axis]), prod(shape[axis:])), 1
    count = shape[axis]
    if x.size * count > _MOST_PAIRS:
        raise build.refused(node, f"it has {x.size * count:,} pairs, more than {_MOST_PAIRS:,}")
    index = np.moveaxis(np.arange(x.size).reshape(shape), axis, -1)
    groups = build.gathered(x, index.reshape(-1, count))
    total = build.append(Op.EXP_SUMS, [groups], groups.shape)
    return total, np.moveaxis(np.arange(x.size).reshape(index.shape), -1, axis)


def _normal(build: Builder, node: NodeProto, rows: int) -> Node:
    """(x - mean) / sqrt(variance + epsilon) of each of so many rows: [rows, values].

    None is farther from 0 than the square root of their number less one, as they add up to 0.
    """
    x = build.source(node)
    count = x.size // rows
    x = build.reshaped(x, (rows, count))
    share = Rounded.exact(np.full(1, count)).reciprocal()
    spread = np.repeat(np.arange(rows), count).reshape(x.shape)
    mean = build.affine(build.summed(x, count), share, ZERO, node)
    centred = build.minus(x, build.selected(mean, spread))
    squares = build.summed(build.function(Op.SQUARE, centred), count)
    epsilon = Rounded.exact(np.full(1, np.float32(build.attribute(node, "epsilon", 1e-5))))
    variance = build.affine(squares, share, epsilon, node)
    inverse = build.function(Op.RECIPROCAL, build.function(Op.SQRT, variance))
    normal = build.times(centred, build.selected(inverse, spread))
    if (epsilon.value < 0).any():
        return normal
    return build.applied("Within", normal, limit=sqrt(count - 1) * (1 + _ROUNDING))


def _layer_normalized(build: Builder, node: NodeProto) -> Node:
    if any(node.output[1:]):
        raise build.refused(node, "only its first output is")
    shape = build.file_shape(node.input[0])
    axis = build.attribute(node, "axis", -1) % len(shape)
    normal = _normal(build, node, prod(shape[:axis]))
    gain, offset = (
        build.rounded(node, i).map(lambda v: np.broadcast_to(v, shape[axis:]).reshape(-1))
        if build.has(node, i)
        else otherwise
        for i, otherwise in ((1, ONE), (2, ZERO))
    )
    return build.affine(normal, gain, offset, node)


def _instance_normalized(build: Builder, node: NodeProto) -> Node:
    """Each channel of each sample by itself."""
    samples, channels = build.file_shape(node.input[0])[:2]
    normal = _normal(build, node, samples * channels)
    gain, offset = (
        Rounded.exact(np.tile(build.constant(node, i), samples).reshape(-1, 1)) for i in (1, 2)
    )
    return build.affine(normal, gain, offset, node)


TRANSLATIONS: dict[str, Translation] = {
    "InstanceNormalization": _instance_normalized,
    "LayerNormalization": _layer_normalized,
    "LogSoftmax": _log_softmax,
    "Softmax": _softmax,
}
