"""Resize and Upsample between values: along each axis, a share of one and the rest of the next."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor, prod

import numpy as np
from onnx import NodeProto

from runner.engine.network.draft import Array
from runner.engine.network.graph import Node
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation.builder import ZERO, Builder

# Where an output's value lies in the input, by coordinate_transformation_mode: of its place, the
# scale, and the lengths before and after.
_HALF = Fraction(1, 2)
_PLACES: dict[bytes, Callable[[Fraction, Fraction, int, int], Fraction]] = {
    b"half_pixel": lambda i, s, a, b: (i + _HALF) / s - _HALF,
    b"pytorch_half_pixel": lambda i, s, a, b: (i + _HALF) / s - _HALF if b > 1 else Fraction(0),
    b"align_corners": lambda i, s, a, b: i * Fraction(a - 1, b - 1) if b > 1 else Fraction(0),
    b"asymmetric": lambda i, s, a, b: i / s,
}


def linear(build: Builder, node: NodeProto) -> Node:
    """Exactly as the standard says, in real arithmetic."""
    mode = build.attribute(node, "coordinate_transformation_mode", b"half_pixel")
    if node.op_type == "Upsample":
        mode = b"asymmetric"
    if mode not in _PLACES or build.attribute(node, "antialias", 0):
        words = "antialias" if mode in _PLACES else mode.decode()
        raise build.refused(node, f"mode linear with {words}")
    x = build.source(node)
    before, after = list(build.file_shape(node.input[0])), build.file_shape(node.output[0])
    for axis, scale in enumerate(_scales(build, node)):
        if before[axis] == after[axis] and scale == 1:
            continue
        places = [
            _PLACES[mode](Fraction(i), scale, before[axis], after[axis]) for i in range(after[axis])
        ]
        x = _along(build, node, x, before, axis, places)
        before[axis] = after[axis]
    return x


def _scales(build: Builder, node: NodeProto) -> list[Fraction]:
    before, after = build.file_shape(node.input[0]), build.file_shape(node.output[0])
    index = 1 if node.op_type == "Upsample" else 2
    given = build.constant(node, index).reshape(-1) if build.has(node, index) else np.zeros(0)
    if not given.size:
        return [Fraction(b, a) for a, b in zip(before, after, strict=True)]
    axes = [int(a) % len(before) for a in build.attribute(node, "axes", range(len(before)))]
    scales = dict(zip(axes, (Fraction(float(scale)) for scale in given), strict=True))
    return [scales.get(axis, Fraction(1)) for axis in range(len(before))]


def _along(
    build: Builder,
    node: NodeProto,
    x: Node,
    shape: list[int],
    axis: int,
    places: list[Fraction],
) -> Node:
    """x at places between its values along one axis; beyond its ends, the last one."""
    last = shape[axis] - 1
    inside = [min(max(place, Fraction(0)), Fraction(last)) for place in places]
    lower = np.array([floor(place) for place in inside])
    shares = [place - floor(place) for place in inside]
    index = np.arange(x.size).reshape(shape)
    parts = []
    for source, weights in (
        (lower, [1 - share for share in shares]),
        (np.minimum(lower + 1, last), shares),
    ):
        picked = np.take(index, source, axis)
        scale = _rounded(weights)
        spread = np.broadcast_to(
            np.arange(len(weights)).reshape(-1, *(1 for _ in shape[axis + 1 :])), picked.shape
        ).reshape(-1)
        scale = Rounded(scale.value[spread], scale.error[spread])
        parts.append(build.affine(build.selected(x, picked.reshape(-1)), scale, ZERO, node))
    return build.reshaped(build.plus(*parts), (prod(index.shape) * len(places) // shape[axis],))


def _rounded(weights: list[Fraction]) -> Rounded:
    values: Array = np.array([float(weight) for weight in weights])
    errors = [abs(Fraction(v) - weight) for v, weight in zip(values.tolist(), weights, strict=True)]
    return Rounded(values, np.array([float(error) * (1 + 2.0**-40) for error in errors]))
