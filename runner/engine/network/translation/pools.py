"""Pools over windows."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from runner.engine.network.draft import Array
from runner.engine.network.graph import Attribute, Node, Op
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation.builder import ZERO, Builder
from runner.engine.network.translation.registry import Translation
from runner.engine.network.translation.windows import Window


def _check(build: Builder, node: NodeProto, window: Window) -> None:
    refusals = {
        "ceil_mode": build.attribute(node, "ceil_mode", 0) != 0,
        "a dilated pool": window.dilation != (1, 1),
        "padding of more than half its window": any(
            2 * pad > length
            for side in (window.begin, window.end)
            for pad, length in zip(side, window.kernel, strict=True)
        ),
    }
    for reason, refused in refusals.items():
        if refused:
            raise build.refused(node, reason)


def _pooled(build: Builder, op: Op, x: Node, window: Window, padding: tuple[int, int]) -> Node:
    image = (
        (x.shape[1 + axis] + 2 * padding[axis] - window.kernel[axis]) // window.stride[axis] + 1
        for axis in (0, 1)
    )
    attributes: dict[str, Attribute] = {
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": padding,
    }
    return build.append(op, [x], (x.shape[0], *image), attributes)


def _greatest(build: Builder, node: NodeProto) -> Node:
    window = Window.of(build, node, build.attribute(node, "kernel_shape", []))
    _check(build, node, window)
    if window.begin != window.end:
        raise build.refused(node, "padding that is not symmetric")
    x = window.image(build, build.source(node))
    return _pooled(build, Op.MAXPOOL, x, window, window.begin)


def _mean(build: Builder, node: NodeProto) -> Node:
    window = Window.of(build, node, build.attribute(node, "kernel_shape", []))
    _check(build, node, window)
    image = window.image(build, build.source(node))
    x, padding = window.padded(build, image)
    pooled = _pooled(build, Op.AVGPOOL, x, window, padding)
    if build.attribute(node, "count_include_pad", 0) or not any((*window.begin, *window.end)):
        return pooled
    size = Rounded.exact(np.full(1, window.kernel[0] * window.kernel[1]))
    scale = size * Rounded.exact(_counted(image.shape[1:], window)).reciprocal()
    return build.affine(pooled, scale, ZERO, node)


def _counted(image: tuple[int, ...], window: Window) -> Array:
    """Of each window [1, rows, columns]: how many of its values are not padding."""
    counts = []
    for axis in (0, 1):
        ones = np.pad(np.ones(image[axis]), (window.begin[axis], window.end[axis]))
        windows = np.lib.stride_tricks.sliding_window_view(ones, window.kernel[axis])
        counts.append(windows[:: window.stride[axis]].sum(1))
    found: Array = np.outer(*counts)[None]
    return found


TRANSLATIONS: dict[str, Translation] = {"AveragePool": _mean, "MaxPool": _greatest}
