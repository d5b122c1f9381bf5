"""Operators on each value by itself, and on values that broadcast to one shape."""

from __future__ import annotations

from functools import reduce

import numpy as np
from onnx import NodeProto

from runner.engine.network.graph import Node, Op
from runner.engine.network.rounded import Rounded
from runner.engine.network.translation.builder import ONE, ZERO, Builder
from runner.engine.network.translation.registry import Translation
from runner.engine.network.translation.value_kinds import is_whole, of_numbers, of_reals

_PLAIN = {
    "Cos": Op.COS,
    "Exp": Op.EXP,
    "Reciprocal": Op.RECIPROCAL,
    "Relu": Op.RELU,
    "Sigmoid": Op.SIGMOID,
    "Sin": Op.SIN,
    "Sqrt": Op.SQRT,
    "Tanh": Op.TANH,
}
_TWO = Rounded.exact(2 * np.ones(1))


def _plain(build: Builder, node: NodeProto) -> Node:
    return build.function(_PLAIN[node.op_type], build.source(node))


def whole(build: Builder, node: NodeProto, index: int) -> Node:
    """A computed input, in the shape of the output."""
    x = build.computed(node, index)
    if x is None:
        raise build.refused(node, f"its input {node.input[index]!r} is constant, not computed")
    before, after = (build.file_shape(name) for name in (node.input[index], node.output[0]))
    return build.expanded(x, before, after, build.shape(node))


def operand(build: Builder, node: NodeProto, index: int) -> Rounded:
    """A constant that broadcasts to the sample."""
    constant, shape = build.rounded(node, index), build.shape(node)
    lengths = constant.value.shape
    if len(lengths) == len(shape) + 1 and lengths[0] == 1:
        return constant.reshape(*lengths[1:])
    return constant


def _sum(build: Builder, node: NodeProto) -> Node:
    """Of any number of values; constants are added last."""
    indices = range(len(node.input))
    computed = [whole(build, node, i) for i in indices if build.computed(node, i) is not None]
    total = reduce(build.plus, computed)
    for index in indices:
        if build.computed(node, index) is None:
            total = build.affine(total, ONE, operand(build, node, index), node)
    return total


def difference(build: Builder, node: NodeProto) -> Node:
    first, second = build.computed(node, 0), build.computed(node, 1)
    if first is not None and second is not None:
        return build.minus(whole(build, node, 0), whole(build, node, 1))
    if first is not None:
        return build.affine(whole(build, node, 0), ONE, -operand(build, node, 1), node)
    return build.affine(whole(build, node, 1), -ONE, operand(build, node, 0), node)


def _mean(build: Builder, node: NodeProto) -> Node:
    count = Rounded.exact(np.full(1, len(node.input)))
    return build.affine(_sum(build, node), count.reciprocal(), ZERO, node)


def _product(build: Builder, node: NodeProto) -> Node:
    first, second = build.computed(node, 0), build.computed(node, 1)
    if first is not None and second is not None:
        return build.times(whole(build, node, 0), whole(build, node, 1))
    index = 1 if first is not None else 0
    return build.affine(whole(build, node, 1 - index), operand(build, node, index), ZERO, node)


def _quotient(build: Builder, node: NodeProto) -> Node:
    if build.computed(node, 1) is None:
        scale = operand(build, node, 1).reciprocal()
        return build.affine(whole(build, node, 0), scale, ZERO, node)
    inverse = build.function(Op.RECIPROCAL, whole(build, node, 1))
    if build.computed(node, 0) is None:
        return build.affine(inverse, operand(build, node, 0), ZERO, node)
    return build.times(whole(build, node, 0), inverse)


def _power(build: Builder, node: NodeProto) -> Node:
    """By a constant; by a computed one, of positive values, exp(y log(x))."""
    if build.computed(node, 1) is not None:
        return _computed_power(build, node)
    x, exponents = whole(build, node, 0), np.unique(build.constant(node, 1))
    if len(exponents) > 1:
        raise build.refused(node, "its exponent is not the same everywhere")
    exponent = float(exponents[0])
    if exponent == 0:
        return build.affine(x, ZERO, ONE, node)
    if exponent not in (-1, -0.5, 0.5, 1, 2, 3, 4):
        return build.applied("Power", x, exponent=exponent)
    if exponent < 0:
        root = x if exponent == -1 else build.function(Op.SQRT, x)
        return build.function(Op.RECIPROCAL, root)
    if exponent == 0.5:
        return build.function(Op.SQRT, x)
    square = build.function(Op.SQUARE, x) if exponent > 1 else x
    if exponent == 3:
        return build.times(square, x)
    return build.function(Op.SQUARE, square) if exponent == 4 else square


def _computed_power(build: Builder, node: NodeProto) -> Node:
    exponent = whole(build, node, 1)
    if build.computed(node, 0) is not None:
        logarithm = build.applied("Log", whole(build, node, 0))
        return build.function(Op.EXP, build.times(exponent, logarithm))
    base = operand(build, node, 0)
    if not (base.value > 0).all():
        raise build.refused(node, "its exponent is computed, and its base not positive")
    return build.function(Op.EXP, build.affine(exponent, base.log(), ZERO, node))


def _negated(build: Builder, node: NodeProto) -> Node:
    return build.affine(build.source(node), -ONE, ZERO, node)


def _leaky(build: Builder, node: NodeProto) -> Node:
    """slope · x + (1 - slope) · ReLU(x)."""
    x = build.source(node)
    if node.op_type == "PRelu":
        if build.computed(node, 0) is None:
            raise build.refused(node, "its slope is computed, not constant")
        x, slope = whole(build, node, 0), operand(build, node, 1)
    else:
        slope = Rounded.exact(np.full(1, np.float32(build.attribute(node, "alpha", 0.01))))
    bent = build.affine(build.relu(x), ONE - slope, ZERO, node)
    return build.plus(build.affine(x, slope, ZERO, node), bent)


def absolute(build: Builder, x: Node, node: NodeProto) -> Node:
    return build.minus(build.affine(build.relu(x), _TWO, ZERO, node), x)


def _absolute(build: Builder, node: NodeProto) -> Node:
    return absolute(build, build.source(node), node)


def _remainder(build: Builder, node: NodeProto) -> Node:
    """x less the divisor times how often it goes into x, which is rounded down for integers, and
    towards 0 for real numbers.
    """
    if build.computed(node, 1) is not None:
        raise build.refused(node, "its divisor is computed, not constant")
    x, divisor = whole(build, node, 0), operand(build, node, 1)
    if not divisor.value.all():
        raise build.refused(node, "it divides by zero")
    of_integers, rounds_down = is_whole(build, node.input[0]), not build.attribute(node, "fmod", 0)
    if of_integers is not rounds_down:
        raise build.refused(node, "fmod is for real numbers alone, and needed there")
    share = divisor.reciprocal()
    if of_integers:
        # Half a unit on, a quotient is not near a whole number, and its rounding does no harm.
        half = Rounded.exact(np.sign(divisor.value) / 2)
        times = build.applied("Floor", build.affine(x, share, half * share, node))
    else:
        quotient = build.affine(x, share, ZERO, node)
        below = build.relu(build.affine(quotient, -ONE, ZERO, node))
        parts = (build.applied("Floor", part) for part in (build.relu(quotient), below))
        times = build.minus(*parts)
    return build.minus(x, build.affine(times, divisor, ZERO, node))


def least_of(build: Builder, x: Node, limit: Rounded, node: NodeProto) -> Node:
    """min(x, limit) = limit - ReLU(limit - x)."""
    below = build.relu(build.affine(x, -ONE, limit, node))
    return build.affine(below, -ONE, limit, node)


def greatest_of(build: Builder, x: Node, limit: Rounded, node: NodeProto) -> Node:
    """max(x, limit) = limit + ReLU(x - limit)."""
    above = build.relu(build.affine(x, ONE, -limit, node))
    return build.affine(above, ONE, limit, node)


def _clipped(build: Builder, node: NodeProto) -> Node:
    x = build.source(node)
    for index, name, choose in ((1, "min", greatest_of), (2, "max", least_of)):
        if build.has(node, index):
            limit = Rounded.exact(build.constant(node, index).reshape(1))
        else:
            written = build.attribute(node, name, None)
            if written is None:
                continue
            limit = Rounded.exact(np.full(1, np.float32(written)))
        if np.isfinite(limit.value).all():
            x = choose(build, x, limit, node)
    return x


def _hard_sigmoid(build: Builder, node: NodeProto) -> Node:
    slope, offset = (
        Rounded.exact(np.full(1, np.float32(build.attribute(node, name, default))))
        for name, default in (("alpha", 0.2), ("beta", 0.5))
    )
    line = build.affine(build.source(node), slope, offset, node)
    return least_of(build, build.relu(line), ONE, node)


def _extreme(build: Builder, node: NodeProto) -> Node:
    """The greatest or least of any number of values, constants last."""
    greatest = node.op_type == "Max"

    def of_two(x: Node, y: Node) -> Node:
        # max(x, y) = y + ReLU(x - y), min(x, y) = y - ReLU(y - x)
        if greatest:
            return build.plus(y, build.relu(build.minus(x, y)))
        return build.minus(y, build.relu(build.minus(y, x)))

    indices = range(len(node.input))
    computed = [whole(build, node, i) for i in indices if build.computed(node, i) is not None]
    found = reduce(of_two, computed)
    for index in indices:
        if build.computed(node, index) is None:
            limit = operand(build, node, index)
            found = (greatest_of if greatest else least_of)(build, found, limit, node)
    return found


TRANSLATIONS: dict[str, Translation] = {
    **dict.fromkeys(_PLAIN, _plain),
    **dict.fromkeys(("Add", "Sum"), of_numbers(_sum)),
    **dict.fromkeys(("LeakyRelu", "PRelu"), _leaky),
    **dict.fromkeys(("Max", "Min"), _extreme),
    "Abs": _absolute,
    "Clip": _clipped,
    "Div": of_reals(_quotient),
    "HardSigmoid": _hard_sigmoid,
    "Mean": of_reals(_mean),
    "Mod": of_numbers(_remainder),
    "Mul": of_numbers(_product),
    "Neg": of_numbers(_negated),
    "Pow": of_reals(_power),
    "Sub": of_numbers(difference),
}
