"""Sums and means along axes: a product with ones."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import NodeProto

from runner.engine.network.graph import Node, Op
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation.builder import ZERO, Builder
from runner.engine.network.translation.pools import extreme_of
from runner.engine.network.translation.registry import Translation
from runner.engine.network.translation.value_kinds import of_numbers, of_reals


def _axes(build: Builder, node: NodeProto) -> list[int] | None:
    """None: it does nothing."""
    rank = len(build.file_shape(node.input[0]))
    if build.has(node, 1):
        given = [int(axis) for axis in build.constant(node, 1).reshape(-1)]
    else:
        given = [int(axis) for axis in build.attribute(node, "axes", [])]
    if not given and build.attribute(node, "noop_with_empty_axes", 0):
        return None
    return sorted(axis % rank for axis in given) or list(range(rank))


def _summed(build: Builder, node: NodeProto, axes: list[int]) -> Node:
    x, shape = build.source(node), build.file_shape(node.input[0])
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    count = prod(shape[axis] for axis in axes)
    index = np.arange(x.size).reshape(shape).transpose(*kept, *axes)
    return build.summed(build.selected(x, index, (1, x.size // count, count)), count)


def _sum(build: Builder, node: NodeProto) -> Node:
    axes = _axes(build, node)
    return build.source(node) if axes is None else _summed(build, node, axes)


def _mean(build: Builder, node: NodeProto) -> Node:
    axes = _axes(build, node)
    if axes is None:
        return build.source(node)
    total = _summed(build, node, axes)
    count = Rounded.exact(np.full(1, build.source(node).size // total.size))
    return build.affine(total, count.reciprocal(), ZERO, node)


def _global_mean(build: Builder, node: NodeProto) -> Node:
    x, shape = build.source(node), build.file_shape(node.input[0])
    image = x.shape[1:]
    if shape[0] != 1 or len(image) not in (1, 2):
        raise build.refused(node, "it is not one- or two-dimensional, or of several samples")
    size = (image[0], image[1] if len(image) == 2 else 1)
    shaped = build.reshaped(x, (x.shape[0], *size))
    attributes = {"kernel": size, "stride": size, "padding": (0, 0)}
    return build.append(Op.AVGPOOL, [shaped], (x.shape[0], 1, 1), attributes)


def _extreme(build: Builder, node: NodeProto) -> Node:
    """The greatest, or the negative of the greatest of negatives."""
    axes = _axes(build, node)
    x, shape = build.source(node), build.file_shape(node.input[0])
    if axes is None:
        return x
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    count = prod(shape[axis] for axis in axes)
    index = np.arange(x.size).reshape(shape).transpose(*kept, *axes).reshape(-1, count)
    return extreme_of(build, x, index, node, least=node.op_type == "ReduceMin")


def _global_greatest(build: Builder, node: NodeProto) -> Node:
    x, shape = build.source(node), build.file_shape(node.input[0])
    index = np.arange(x.size).reshape(prod(shape[:2]), -1)
    return extreme_of(build, x, index, node)


TRANSLATIONS: dict[str, Translation] = {
    "GlobalAveragePool": _global_mean,
    "GlobalMaxPool": _global_greatest,
    "ReduceMax": _extreme,
    "ReduceMean": of_reals(_mean),
    "ReduceMin": _extreme,
    "ReduceSum": of_numbers(_sum),
}
