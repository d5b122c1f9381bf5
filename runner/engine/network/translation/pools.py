"""Pools over windows."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import NodeProto

from runner.engine.network.draft import Array
from runner.engine.network.graph import Attribute, Node, Op
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation.builder import ONE, ZERO, Builder
from runner.engine.network.translation.gathered import axes_of, channels_of, joined
from runner.engine.network.translation.registry import Translation
from runner.engine.network.translation.windows import WindowForm


def _is_plain(build: Builder, node: NodeProto) -> bool:
    """Whether it is a pool of the bound graph, but for uneven padding."""
    shape = build.file_shape(node.input[0])
    if len(shape) not in (3, 4) or shape[0] != 1 or build.attribute(node, "ceil_mode", 0):
        return False
    window = WindowForm.of(build, node, build.attribute(node, "kernel_shape", []))
    sides = [*zip(window.begin, window.kernel, strict=True)]
    sides += zip(window.end, window.kernel, strict=True)
    return window.dilation == (1, 1) and all(2 * pad <= length for pad, length in sides)


def _pooled(build: Builder, op: Op, x: Node, window: WindowForm, padding: tuple[int, int]) -> Node:
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


def _of_rows(build: Builder, op: Op, x: Node, index: Array) -> Node:
    """A pool of each row of an index [rows, values]: [1, rows, 1]."""
    rows, count = index.shape
    window = {"kernel": (1, count), "stride": (1, count), "padding": (0, 0)}
    return build.append(op, [build.selected(x, index, (1, rows, count))], (1, rows, 1), window)


def extreme_of(
    build: Builder, x: Node, index: Array, node: NodeProto, *, least: bool = False
) -> Node:
    """The greatest value of each row of an index [rows, values], or the least."""
    if not least:
        return _of_rows(build, Op.MAXPOOL, x, index)
    negative = build.affine(x, -ONE, ZERO, node)
    return build.affine(_of_rows(build, Op.MAXPOOL, negative, index), -ONE, ZERO, node)


def _greatest(build: Builder, node: NodeProto) -> Node:
    kernel = build.attribute(node, "kernel_shape", [])
    if _is_plain(build, node):
        window = WindowForm.of(build, node, kernel)
        if window.begin == window.end:
            x = window.image(build, build.source(node))
            return _pooled(build, Op.MAXPOOL, x, window, window.begin)
    index = _gathered(build, node)
    # A value more than once is no greater: so there is none for the padding.
    index = np.where(index < 0, index.max(1, keepdims=True), index)
    return extreme_of(build, build.source(node), index, node)


def _gathered(build: Builder, node: NodeProto) -> Array:
    """[windows, values], -1 for padding."""
    image = build.file_shape(node.input[0])[2:]
    axes = axes_of(build, node, build.attribute(node, "kernel_shape", []))
    index = joined(build, node, [axis.sources for axis in axes], image)
    found = channels_of(build, node, build.source(node), index, image)
    return found.reshape(-1, found.shape[-1])


def _mean(build: Builder, node: NodeProto) -> Node:
    padded = bool(build.attribute(node, "count_include_pad", 0))
    if not _is_plain(build, node):
        return _gathered_mean(build, node, padded=padded)
    window = WindowForm.of(build, node, build.attribute(node, "kernel_shape", []))
    image = window.image(build, build.source(node))
    x, padding = window.padded(build, image)
    pooled = _pooled(build, Op.AVGPOOL, x, window, padding)
    if padded or not any((*window.begin, *window.end)):
        return pooled
    size = Rounded.exact(np.full(1, window.kernel[0] * window.kernel[1]))
    scale = size * Rounded.exact(_counted(image.shape[1:], window)).reciprocal()
    return build.affine(pooled, scale, ZERO, node)


def _counted(image: tuple[int, ...], window: WindowForm) -> Array:
    """Of each window [1, rows, columns]: how many of its values are not padding."""
    counts = []
    for axis in (0, 1):
        ones = np.pad(np.ones(image[axis]), (window.begin[axis], window.end[axis]))
        windows = np.lib.stride_tricks.sliding_window_view(ones, window.kernel[axis])
        counts.append(windows[:: window.stride[axis]].sum(1))
    found: Array = np.outer(*counts)[None]
    return found


def _gathered_mean(build: Builder, node: NodeProto, *, padded: bool) -> Node:
    """`padded`: padding counts, but not what lies beyond it in the last window."""
    index = _gathered(build, node)
    counts = (index >= 0).sum(1)
    if padded:
        axes = axes_of(build, node, build.attribute(node, "kernel_shape", []))
        of_axes = [
            ((a.positions >= -a.begin) & (a.positions < a.before + a.end)).sum(1) for a in axes
        ]
        of_channel = of_axes[0]
        for more in of_axes[1:]:
            of_channel = np.multiply.outer(of_channel, more)
        counts = np.tile(of_channel.reshape(-1), len(index) // prod(of_channel.shape))
    pooled = _of_rows(build, Op.AVGPOOL, build.source(node), index)
    size = Rounded.exact(np.full(1, index.shape[1]))
    scale = size * Rounded.exact(counts.reshape(1, -1, 1)).reciprocal()
    return build.affine(pooled, scale, ZERO, node)


TRANSLATIONS: dict[str, Translation] = {"AveragePool": _mean, "MaxPool": _greatest}
