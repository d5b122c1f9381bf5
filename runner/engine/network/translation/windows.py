"""Convolutions and pools in one dimension or two: a line is an image of one column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from runner.engine.network.graph import Node
from runner.engine.network.translation.builder import Builder

Pair = tuple[int, int]


def two(lengths: Sequence[int]) -> Pair:
    """Rows and columns of an image or a line."""
    return (int(lengths[0]), int(lengths[1]) if len(lengths) == 2 else 1)


@dataclass(frozen=True)
class WindowForm:
    """How a kernel moves over an image, rows and columns; `begin`, `end`: padding on each side."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    begin: Pair
    end: Pair

    @staticmethod
    def of(build: Builder, node: NodeProto, kernel: Sequence[int]) -> WindowForm:
        """Raises InstanceError UNSUPPORTED_OPERATOR for other than one or two dimensions."""
        shape = build.file_shape(node.input[0])
        if len(shape) not in (3, 4) or shape[0] != 1:
            raise build.refused(node, "it is not one- or two-dimensional, or of several samples")
        axes = len(shape) - 2

        def pair(name: str, default: int) -> Pair:
            values = [int(v) for v in build.attribute(node, name, [default] * axes)]
            return (values[0], values[1] if axes == 2 else default)

        pads = [int(v) for v in build.attribute(node, "pads", [0] * 2 * axes)]
        begin, end = pads[:axes], pads[axes:]
        window = WindowForm(
            two(kernel),
            pair("strides", 1),
            pair("dilations", 1),
            (begin[0], begin[1] if axes == 2 else 0),
            (end[0], end[1] if axes == 2 else 0),
        )
        return window._automatic(build, node)

    def _automatic(self, build: Builder, node: NodeProto) -> WindowForm:
        """Padding that follows from the lengths before and after; of convolutions and pools."""
        kind = build.attribute(node, "auto_pad", b"NOTSET")
        if kind in (b"NOTSET", b"VALID") or node.op_type == "ConvTranspose":
            return self
        before = two(build.file_shape(node.input[0])[2:])
        after = two(build.file_shape(node.output[0])[2:])
        begin, end = [], []
        for axis in (0, 1):
            reach = (after[axis] - 1) * self.stride[axis] + 1
            reach += self.dilation[axis] * (self.kernel[axis] - 1)
            total = max(0, reach - before[axis])
            less = total // 2
            begin.append(total - less if kind == b"SAME_LOWER" else less)
            end.append(total - begin[axis])
        sides = (begin[0], begin[1]), (end[0], end[1])
        return WindowForm(self.kernel, self.stride, self.dilation, *sides)

    def image(self, build: Builder, x: Node) -> Node:
        """[channels, rows, columns]."""
        return x if len(x.shape) == 3 else build.reshaped(x, (*x.shape, 1))

    def padded(self, build: Builder, x: Node) -> tuple[Node, Pair]:
        """The image and what is left to pad on both sides alike: uneven padding is done here."""
        if self.begin == self.end:
            return x, self.begin
        index = np.arange(x.size).reshape(x.shape)
        sides = [(0, 0), *zip(self.begin, self.end, strict=True)]
        return build.selected(x, np.pad(index, sides, constant_values=-1)), (0, 0)

    def transposed_begin(
        self, build: Builder, node: NodeProto, image: Sequence[int], after: Pair
    ) -> Pair:
        """What a transposed convolution takes off in front."""
        kind = build.attribute(node, "auto_pad", b"NOTSET")
        given = bool(build.attribute(node, "output_shape", []))
        if kind in (b"NOTSET", b"VALID") and not given:
            return self.begin
        begin = []
        extra = two(build.attribute(node, "output_padding", [0, 0]))
        for axis in (0, 1):
            whole = self.stride[axis] * (image[axis] - 1) + extra[axis]
            whole += (self.kernel[axis] - 1) * self.dilation[axis] + 1
            total = max(0, whole - after[axis])
            half = total // 2
            begin.append(half if kind == b"SAME_UPPER" else total - half)
        return begin[0], begin[1]
