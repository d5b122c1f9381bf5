"""Comparisons and what is decided by them. A truth is 1 or 0; the bound graph has steps for them.

Whole numbers are compared half-way between two of them, where no rounding matters.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from runner.engine.network.graph import Node
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation.builder import ONE, ZERO, Builder
from runner.engine.network.translation.pointwise import absolute, difference, operand, whole
from runner.engine.network.translation.registry import Translation
from runner.engine.network.translation.value_kinds import is_whole

_HALF = Rounded.exact(np.full(1, 0.5))
# Comparisons of all pairs of an ArgMax, each of which has bounds of its own.
_MOST_PAIRS = 1 << 20


def _compared(build: Builder, node: NodeProto) -> Node:
    gap = difference(build, node)
    of_whole = any(is_whole(build, name) for name in node.input)
    if node.op_type == "Equal":
        return build.applied("WholeZero" if of_whole else "Zero", gap)
    if node.op_type in ("Less", "LessOrEqual"):
        gap = build.affine(gap, -ONE, ZERO, node)
    strict = node.op_type in ("Greater", "Less")
    if of_whole:
        gap = build.affine(gap, ONE, -_HALF if strict else _HALF, node)
    return build.applied("Positive" if strict else "NotNegative", gap)


def _not(build: Builder, node: NodeProto) -> Node:
    return build.affine(build.source(node), -ONE, ONE, node)


def _truths(build: Builder, node: NodeProto) -> tuple[Node, Node | Rounded]:
    """Both inputs; a constant is the second."""
    if build.computed(node, 0) is None:
        return whole(build, node, 1), operand(build, node, 0)
    if build.computed(node, 1) is None:
        return whole(build, node, 0), operand(build, node, 1)
    return whole(build, node, 0), whole(build, node, 1)


def _and(build: Builder, node: NodeProto) -> Node:
    """ReLU(x + y - 1)."""
    x, y = _truths(build, node)
    if isinstance(y, Rounded):
        return build.affine(x, y, ZERO, node)
    return build.relu(build.affine(build.plus(x, y), ONE, -ONE, node))


def _or(build: Builder, node: NodeProto) -> Node:
    """1 - ReLU(1 - x - y)."""
    x, y = _truths(build, node)
    if isinstance(y, Rounded):
        return build.affine(x, ONE - y, y, node)
    neither = build.relu(build.affine(build.plus(x, y), -ONE, ONE, node))
    return build.affine(neither, -ONE, ONE, node)


def _xor(build: Builder, node: NodeProto) -> Node:
    """|x - y|, or with a constant x (1 - 2 y) + y."""
    x, y = _truths(build, node)
    if isinstance(y, Rounded):
        return build.affine(x, ONE - y - y, y, node)
    return absolute(build, build.minus(x, y), node)


def _chosen(build: Builder, node: NodeProto) -> Node:
    """c x + (1 - c) y, which is exact where c is known."""
    parts = []
    for index, (scale, shift) in ((1, (ONE, ZERO)), (2, (-ONE, ONE))):
        if build.computed(node, 0) is None:
            share = scale * operand(build, node, 0) + shift
            parts.append(_scaled(build, node, index, share))
            continue
        truth = build.affine(whole(build, node, 0), scale, shift, node)
        if build.computed(node, index) is None:
            parts.append(build.affine(truth, operand(build, node, index), ZERO, node))
        else:
            parts.append(build.times(truth, whole(build, node, index)))
    first, second = parts
    if isinstance(first, Rounded):
        first, second = second, first
    if isinstance(first, Rounded):
        raise build.refused(node, "all its inputs are constant")
    if isinstance(second, Rounded):
        return build.affine(first, ONE, second, node)
    return build.plus(first, second)


def _scaled(build: Builder, node: NodeProto, index: int, share: Rounded) -> Node | Rounded:
    if build.computed(node, index) is None:
        return share * operand(build, node, index)
    return build.affine(whole(build, node, index), share, ZERO, node)


def _arg_extreme(build: Builder, node: NodeProto) -> Node:
    """The sum of k times whether index k beats all others, those before it strictly.

    ReLU makes 0 of an index that misses a comparison. Ties are the negation of a strict loss.
    """
    x, shape = build.source(node), build.file_shape(node.input[0])
    axis = build.attribute(node, "axis", 0) % len(shape)
    count = shape[axis]
    if x.size * count > _MOST_PAIRS:
        raise build.refused(node, f"it has {x.size * count:,} pairs, more than {_MOST_PAIRS:,}")
    index = np.moveaxis(np.arange(x.size).reshape(shape), axis, -1).reshape(-1, count)
    if count == 1:
        return build.affine(build.selected(x, index[:, 0]), ZERO, ZERO, node)
    mine, other = (~np.eye(count, dtype=bool)).nonzero()
    strict = (other > mine) == bool(build.attribute(node, "select_last_index", 0))
    ahead = strict == (node.op_type == "ArgMax")
    gaps = build.minus(
        build.selected(x, index[:, np.where(ahead, mine, other)].reshape(-1)),
        build.selected(x, index[:, np.where(ahead, other, mine)].reshape(-1)),
    )
    lost = np.tile(np.where(strict, 0.0, 1.0), len(index))
    won = build.affine(
        build.applied("Positive", gaps), Rounded.exact(1 - 2 * lost), Rounded.exact(lost), node
    )
    missing = Rounded.exact(np.full(1, 2.0 - count))
    wins = build.affine(build.summed(won, count - 1), ONE, missing, node)
    best = build.reshaped(build.relu(wins), (1, len(index), count))
    places = np.arange(count, dtype=str(build.network.dtype)).reshape(1, 1, 1, count)
    return build.conv(best, places, None)


def _one_hot(build: Builder, node: NodeProto) -> Node:
    """off + (on - off) [index is k], where an index below 0 counts from the end."""
    if build.computed(node, 0) is None:
        raise build.refused(node, "its indices are constant, its values computed")
    x, shape = build.source(node), build.file_shape(node.input[0])
    depth = int(build.constant(node, 1).reshape(-1)[0])
    off, on = (Rounded.exact(value.reshape(1)) for value in build.constant(node, 2))
    axis = build.attribute(node, "axis", -1) % (len(shape) + 1)
    index = np.repeat(np.expand_dims(np.arange(x.size).reshape(shape), axis), depth, axis)
    places = np.arange(depth).reshape(-1, *(1 for _ in index.shape[axis + 1 :]))
    places = np.broadcast_to(places, index.shape).reshape(-1).astype(np.float64)
    repeated = build.selected(x, index.reshape(-1))
    hits = [
        build.applied("WholeZero", build.affine(repeated, ONE, -Rounded.exact(places - back), node))
        for back in (0, depth)
    ]
    return build.affine(build.plus(*hits), on - off, off, node)


TRANSLATIONS: dict[str, Translation] = {
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _compared),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg_extreme),
    "And": _and,
    "Not": _not,
    "OneHot": _one_hot,
    "Or": _or,
    "Where": _chosen,
    "Xor": _xor,
}
