"""Products with the weights of the file: Gemm, MatMul, Conv, ConvTranspose, BatchNormalization.

A matrix that meets each row of a value by itself is a convolution of one pixel, so that all of
them are cut, moved and summed alike under every strategy.
"""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import NodeProto

from runner.engine.network.draft import Array
from runner.engine.network.graph import Node
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation import gathered
from runner.engine.network.translation.builder import ONE, ZERO, Builder
from runner.engine.network.translation.registry import Translation
from runner.engine.network.translation.windows import WindowForm, two

# Of a product of two computed matrices, each of which has bounds of its own.
_MOST_PRODUCTS = 1 << 20

# Of the file, or computed by it.
Weight = Array | Rounded


def _rows(build: Builder, x: Node, weight: Weight, bias: Array | None, node: NodeProto) -> Node:
    """Each of x's rows, as long as the weight's, times weight.T: [rows, out], or flat."""
    if isinstance(weight, Rounded):
        return _entries(build, x, weight, node)
    length = weight.shape[1]
    count = x.size // length
    if count == 1:
        return build.linear(x, weight, bias)
    turned = np.arange(x.size).reshape(count, length).T
    columns = build.selected(x, turned, (length, count, 1))
    product = build.conv(columns, weight[:, :, None, None], bias)
    return build.selected(product, np.arange(product.size).reshape(len(weight), count).T)


def _columns(
    build: Builder, x: Node, shape: tuple[int, ...], weight: Weight, node: NodeProto
) -> Node:
    """weight times each of x's matrices [length, columns] (`shape`: with those in front)."""
    *front, length, columns = shape
    count = prod(front)
    index = np.arange(x.size).reshape(count, length, columns)
    if isinstance(weight, Rounded):
        product = _entries(build, build.selected(x, index.swapaxes(1, 2)), weight, node)
        back = np.arange(product.size).reshape(count, columns, -1).swapaxes(1, 2)
        return build.selected(product, back, (product.size,))
    columns_of = build.selected(x, index.transpose(1, 0, 2), (length, count * columns, 1))
    product = build.conv(columns_of, weight[:, :, None, None], None)
    back = np.arange(product.size).reshape(len(weight), count, columns)
    return build.selected(product, back.transpose(1, 0, 2))


def _entries(build: Builder, x: Node, weight: Rounded, node: NodeProto) -> Node:
    """As `_rows`, entry by entry: each is charged with its own error."""
    outputs, length = weight.shape
    if x.size * outputs > _MOST_PRODUCTS:
        raise build.refused(
            node,
            "the file computes its constant, whose rounding would be charged to each of "
            f"{x.size * outputs:,} products; export the network with its constants folded",
        )
    rows = np.arange(x.size).reshape(-1, 1, length)
    index = np.broadcast_to(rows, (len(rows), outputs, length))
    return build.summed(build.affine(build.selected(x, index), weight, ZERO, node), length)


def _weight(build: Builder, node: NodeProto, index: int) -> Weight:
    """As the file has it, or what it computes."""
    rounded = build.network.draft.rounded.get(node.input[index])
    return build.constant(node, index) if rounded is None else rounded


def _gemm(build: Builder, node: NodeProto) -> Node:
    alpha, beta = (Rounded.exact(build.attribute(node, name, 1.0)) for name in ("alpha", "beta"))
    outputs = build.file_shape(node.output[0])
    left, right = build.computed(node, 0), build.computed(node, 1)
    if left is not None and right is not None:
        return _met_gemm(build, node, alpha, beta)
    if build.has(node, 2) and build.computed(node, 2) is not None:
        raise build.refused(node, "what it adds is computed, and one of its matrices constant")
    if left is None:
        return _left_gemm(build, node, alpha, beta)
    weight = _weight(build, node, 1)
    weight = weight if build.attribute(node, "transB", 0) else weight.T
    if build.attribute(node, "transA", 0):
        length, count = build.file_shape(node.input[0])
        left = build.selected(left, np.arange(left.size).reshape(length, count).T)
    added = _added(build, node, outputs)
    rows = added.value
    inside = alpha.value == 1 and beta.value == 1 and (rows == rows[:1]).all() and added.is_exact
    if inside and not isinstance(weight, Rounded):
        return _rows(build, left, weight, rows[0].astype(weight.dtype), node)
    product = build.reshaped(_rows(build, left, weight, None, node), build.shape(node))
    return build.affine(product, alpha, beta * added.reshape(*product.shape), node)


def _added(build: Builder, node: NodeProto, outputs: tuple[int, ...]) -> Rounded:
    """What a Gemm adds."""
    added = build.rounded(node, 2) if build.has(node, 2) else ZERO
    return added.map(lambda values: np.broadcast_to(values, outputs))


def _left_gemm(build: Builder, node: NodeProto, alpha: Rounded, beta: Rounded) -> Node:
    """A constant matrix times a computed one."""
    weight, right = _weight(build, node, 0), build.source(node)
    weight = weight.T if build.attribute(node, "transA", 0) else weight
    shape = build.file_shape(node.input[1])
    if build.attribute(node, "transB", 0):
        right = build.selected(right, np.arange(right.size).reshape(shape).T)
        shape = shape[::-1]
    outputs = build.file_shape(node.output[0])
    product = build.reshaped(_columns(build, right, shape, weight, node), outputs)
    return build.affine(product, alpha, beta * _added(build, node, outputs), node)


def _met_gemm(build: Builder, node: NodeProto, alpha: Rounded, beta: Rounded) -> Node:
    """Of two computed matrices; what is added may be computed as well."""
    left, right = (build.computed(node, index) for index in (0, 1))
    if left is None or right is None:
        raise build.refused(node, "one of its matrices is constant")
    outputs = build.file_shape(node.output[0])
    found = build.reshaped(_met(build, node, left, right), outputs)
    found = build.affine(found, alpha, ZERO, node)
    if not build.has(node, 2):
        return found
    added = build.computed(node, 2)
    if added is None:
        constant = np.broadcast_to(build.constant(node, 2), outputs)
        return build.affine(found, ONE, beta * Rounded.exact(constant), node)
    before = build.file_shape(node.input[2])
    more = build.expanded(added, before, outputs, outputs)
    return build.plus(found, build.affine(more, beta, ZERO, node))


def _matmul(build: Builder, node: NodeProto) -> Node:
    left, right = build.computed(node, 0), build.computed(node, 1)
    if left is not None and right is not None:
        return _met(build, node, left, right)
    weight = _weight(build, node, 1 if left is not None else 0)
    if len(weight.shape) > 2 and prod(weight.shape[:-2]) == 1:
        weight = weight.reshape(*weight.shape[-2:])
    if len(weight.shape) > 2:
        if isinstance(weight, Rounded):
            raise build.refused(node, "the file computes its constant, of more than one matrix")
        return _matrices(build, node, weight, left is not None)
    if left is not None:
        matrix = weight.T if len(weight.shape) == 2 else weight.reshape(1, -1)
        return _rows(build, left, matrix, None, node)
    right = build.source(node)
    matrix = weight if len(weight.shape) == 2 else weight.reshape(1, -1)
    shape = build.file_shape(node.input[1])
    if len(shape) == 1:
        return _rows(build, right, matrix, None, node)
    return _columns(build, right, shape, matrix, node)


def _matrices(build: Builder, node: NodeProto, weight: Array, computed_left: bool) -> Node:
    """Constant matrices, one for each of the computed ones: a convolution with groups."""
    x, shape = build.source(node), build.file_shape(node.input[0 if computed_left else 1])
    outputs = build.file_shape(node.output[0])
    index = np.arange(x.size).reshape(shape)
    if len(shape) == 1:
        index = index[None] if computed_left else index[:, None]
    if computed_left:
        weight, index = weight.swapaxes(-1, -2), index.swapaxes(-1, -2)
    front = np.broadcast_shapes(weight.shape[:-2], index.shape[:-2])
    if prod(front) * max(index.shape[-1] * index.shape[-2], prod(weight.shape[-2:])) > 1 << 24:
        raise build.refused(node, "its matrices are too many")
    weight = np.broadcast_to(weight, (*front, *weight.shape[-2:]))
    index = np.broadcast_to(index, (*front, *index.shape[-2:]))
    groups, rows, columns = prod(front), weight.shape[-2], index.shape[-1]
    kernel = np.ascontiguousarray(weight.reshape(groups * rows, -1, 1, 1))
    moved = build.selected(x, index.reshape(-1, columns, 1))
    found = build.conv(moved, kernel, None, groups=groups)
    back = np.arange(found.size).reshape(groups, rows, columns)
    back = back.swapaxes(-1, -2) if computed_left else back
    return build.selected(found, back.reshape(-1), (prod(outputs),))


def _met(build: Builder, node: NodeProto, left: Node, right: Node) -> Node:
    """As many products of two matrices as there are pairs of them."""
    shapes = [build.file_shape(name) for name in node.input[:2]]
    rows, columns = (np.arange(prod(shape)).reshape(shape) for shape in shapes)
    if node.op_type == "Gemm":
        rows = rows.T if build.attribute(node, "transA", 0) else rows
        columns = columns.T if build.attribute(node, "transB", 0) else columns
    rows = rows[None] if rows.ndim == 1 else rows
    columns = columns[:, None] if columns.ndim == 1 else columns
    front = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    count = prod(front) * rows.shape[-2] * prod(columns.shape[-2:])
    if count > _MOST_PRODUCTS:
        raise build.refused(node, f"of two computed values with {count:,} products")
    first, second = (
        build.selected(x, np.broadcast_to(index, (*front, *last)).reshape(-1, *last))
        for x, index, last in ((left, rows, rows.shape[-2:]), (right, columns, columns.shape[-2:]))
    )
    return build.matmul(first, second)


def _conv(build: Builder, node: NodeProto) -> Node:
    x, weight = build.source(node), build.constant(node, 1)
    if build.computed(node, 0) is None:
        raise build.refused(node, "its kernel is computed, not constant")
    if weight.ndim > 4:
        axes = gathered.axes_of(build, node, weight.shape[2:])
        bias = build.constant(node, 2) if build.has(node, 2) else None
        return gathered.product(build, node, weight, [axis.sources for axis in axes], bias)
    window = WindowForm.of(build, node, weight.shape[2:])
    padded, padding = window.padded(build, window.image(build, x))
    bias = build.constant(node, 2) if build.has(node, 2) else None
    return build.conv(
        padded,
        weight.reshape(*weight.shape[:2], *window.kernel),
        bias,
        stride=window.stride,
        padding=padding,
        dilation=window.dilation,
        groups=int(build.attribute(node, "group", 1)),
    )


def _transposed_conv(build: Builder, node: NodeProto) -> Node:
    """A convolution over the input with zeros between its values, by the kernel turned around."""
    groups = int(build.attribute(node, "group", 1))
    weight = build.constant(node, 1)
    bias = build.constant(node, 2) if build.has(node, 2) else None
    if weight.ndim > 4:
        axes = gathered.axes_of(build, node, weight.shape[2:])
        parts = [axis.spread for axis in axes]
        return gathered.product(build, node, gathered.turned(weight, groups), parts, bias)
    window = WindowForm.of(build, node, weight.shape[2:])
    x = window.image(build, build.source(node))
    channels, *image = x.shape
    after = two(build.file_shape(node.output[0])[2:])
    spread = [(size - 1) * step + 1 for size, step in zip(image, window.stride, strict=True)]
    begin = window.transposed_begin(build, node, image, after)
    reach = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
    # Of the padded image: where the first value lies, and how long it is.
    first = [r - b for r, b in zip(reach, begin, strict=True)]
    index = np.full([channels, *(a + r for a, r in zip(after, reach, strict=True))], -1)
    positions = np.full([channels, *spread], -1)
    positions[:, :: window.stride[0], :: window.stride[1]] = np.arange(x.size).reshape(x.shape)
    inner, outer = [], []
    for at, size, room in zip(first, spread, index.shape[1:], strict=True):
        start, stop = max(at, 0), min(at + size, room)
        outer.append(slice(start, stop))
        inner.append(slice(start - at, stop - at))
    index[:, outer[0], outer[1]] = positions[:, inner[0], inner[1]]
    flipped = weight.reshape(*weight.shape[:2], *window.kernel)[:, :, ::-1, ::-1]
    return build.conv(
        build.selected(x, index),
        gathered.turned(flipped, groups),
        bias,
        dilation=window.dilation,
        groups=groups,
    )


def _normalized(build: Builder, node: NodeProto) -> Node:
    gain, offset, mean, variance = (build.rounded(node, index) for index in range(1, 5))
    x = build.source(node)
    channels = build.file_shape(node.input[0])[1:2]
    if build.file_shape(node.input[0])[0] != 1 or gain.value.shape != channels:
        raise build.refused(node, "its statistics are not one of each channel")
    # The file's epsilon is a float32, 1e-5 by default.
    epsilon = np.float32(build.attribute(node, "epsilon", 1e-5))
    scale = gain * (variance + Rounded.exact(epsilon)).sqrt().reciprocal()
    if not np.isfinite(scale.value).all():
        raise build.refused(node, "a variance that is not positive, even with its epsilon")
    shift = offset - mean * scale
    spread = (-1, *(1 for _ in x.shape[1:]))
    return build.affine(x, scale.reshape(*spread), shift.reshape(*spread), node)


TRANSLATIONS: dict[str, Translation] = {
    "BatchNormalization": _normalized,
    "Conv": _conv,
    "ConvTranspose": _transposed_conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
