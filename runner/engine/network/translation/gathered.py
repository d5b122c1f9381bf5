"""Windows of any number of dimensions, wherever they lie: their values are gathered side by side.

What takes more room than a convolution or a pool of the bound graph, and is right in all forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import NodeProto

from runner.engine.network.draft import Array
from runner.engine.network.graph import Node
from runner.engine.network.translation.builder import Builder

_MOST_GATHERED = 1 << 24


@dataclass(frozen=True)
class GatheredAxis:
    """One dimension of a window: lengths before and after, and how it moves; `begin`, `end`: the
    padding.
    """

    before: int
    after: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def positions(self) -> Array:
        """[after, kernel]: of the input, with what is beyond its ends."""
        starts = np.arange(self.after) * self.stride - self.begin
        found: Array = starts[:, None] + np.arange(self.kernel) * self.dilation
        return found

    @property
    def sources(self) -> Array:
        """[after, kernel]: of the input -1 where there is none."""
        places = self.positions
        found: Array = np.where((places >= 0) & (places < self.before), places, -1)
        return found

    @property
    def spread(self) -> Array:
        """[after, kernel]: where a transposed convolution takes each value from, -1: nowhere."""
        places = (
            np.arange(self.after)[:, None] + self.begin - np.arange(self.kernel) * self.dilation
        )
        inside = (places >= 0) & (places % self.stride == 0)
        found: Array = np.where(inside & (places < self.before * self.stride), places, -self.stride)
        return found // self.stride


def axes_of(build: Builder, node: NodeProto, kernel: Sequence[int]) -> list[GatheredAxis]:
    """Of a convolution or a pool."""
    before, after = (build.file_shape(name)[2:] for name in (node.input[0], node.output[0]))
    count = len(kernel)

    def given(name: str, default: int) -> list[int]:
        return [int(v) for v in build.attribute(node, name, [default] * count)]

    strides, dilations, pads = given("strides", 1), given("dilations", 1), given("pads", 0)
    pads = pads if len(pads) == 2 * count else [0] * 2 * count
    extra, kind = given("output_padding", 0), build.attribute(node, "auto_pad", b"NOTSET")
    transposed = node.op_type == "ConvTranspose"
    fixed = kind in (b"NOTSET", b"VALID") and not build.attribute(node, "output_shape", [])
    axes = []
    for index in range(count):
        reach = (kernel[index] - 1) * dilations[index] + 1
        if transposed:
            total = strides[index] * (before[index] - 1) + extra[index] + reach - after[index]
        else:
            total = (after[index] - 1) * strides[index] + reach - before[index]
        total = max(0, total)
        upper = kind == b"SAME_UPPER"
        begin = total // 2 if upper else total - total // 2
        sides = (pads[index], pads[count + index]) if fixed else (begin, total - begin)
        sizes = before[index], after[index], kernel[index]
        axes.append(GatheredAxis(*sizes, strides[index], dilations[index], *sides))
    return axes


def joined(build: Builder, node: NodeProto, parts: Sequence[Array], image: Sequence[int]) -> Array:
    """Positions of each axis [after, kernel] to those of the image: [*after, *kernel], -1: none."""
    if prod(part.size for part in parts) > _MOST_GATHERED:
        raise build.refused(node, f"it gathers more than {_MOST_GATHERED:,} values")
    count = len(parts)
    index: Array = np.zeros((1,) * 2 * count, dtype=np.int64)
    inside = np.ones((1,) * 2 * count, dtype=bool)
    for axis, part in enumerate(parts):
        shape = [1] * 2 * count
        shape[axis], shape[count + axis] = part.shape
        spread = part.reshape(shape)
        index, inside = index * image[axis] + spread, inside & (spread >= 0)
    found: Array = np.where(inside, index, -1)
    return found


def channels_of(
    build: Builder, node: NodeProto, x: Node, index: Array, image: Sequence[int]
) -> Array:
    """[channels, windows, values] of one channel's index [*after, *kernel]."""
    count, size = x.size // prod(image), prod(image)
    if count * index.size > _MOST_GATHERED:
        raise build.refused(node, f"it gathers more than {_MOST_GATHERED:,} values")
    flat = index.reshape(1, prod(index.shape[: len(image)]), -1)
    found: Array = np.where(flat < 0, -1, flat + size * np.arange(count).reshape(-1, 1, 1))
    return found


def product(
    build: Builder, node: NodeProto, weight: Array, parts: Sequence[Array], bias: Array | None
) -> Node:
    """Weight [out, in / groups, *kernel] times the windows of an image."""
    x, shape = build.source(node), build.file_shape(node.input[0])
    if shape[0] != 1:
        raise build.refused(node, "it is of several samples")
    index = channels_of(build, node, x, joined(build, node, parts, shape[2:]), shape[2:])
    columns = index.transpose(0, 2, 1).reshape(-1, index.shape[1], 1)
    kernel = np.ascontiguousarray(weight.reshape(len(weight), -1, 1, 1))
    groups = int(build.attribute(node, "group", 1))
    return build.conv(build.selected(x, columns), kernel, bias, groups=groups)


def turned(weight: Array, groups: int) -> Array:
    """Of a transposed convolution, [in, out / groups, *kernel] to [out, in / groups, *kernel]."""
    inputs, outputs, *kernel = weight.shape
    split = weight.reshape(groups, inputs // groups, outputs, *kernel).swapaxes(1, 2)
    return np.ascontiguousarray(split.reshape(groups * outputs, inputs // groups, *kernel))
