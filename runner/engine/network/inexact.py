"""Constants that the file computes in floating point: by how much real arithmetic may differ.

ONNX Runtime rounds them, and a proof about rounded weights is none about the weights of the file.
Here each is computed in float64 with a bound of its distance from the exact one, which the bounds
of the network are charged with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from runner.engine.network.draft import Array
from runner.engine.network.rounded import Rounded, Values

# A value that is rounded, or whole numbers and truths, which are exact.
Argument = Rounded | Array
Attributes = dict[str, Any]

# Each value that they give is one that they are given.
_MOVES = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"),
        *("Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    }
)
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})


def rounded_values(
    node: NodeProto,
    arguments: Sequence[Argument | None],
    moved: Callable[[Sequence[Array | None]], Sequence[Array]],
) -> Sequence[Rounded] | None:
    """What each output of a node of constants is; None where that is not known.

    `arguments`: None for one that is not given. `moved`: the node of other values.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in _MOVES:
        return _moved(arguments, moved)
    compute = _COMPUTED.get(node.op_type)
    return None if compute is None else _one(compute(attributes, *arguments))


def _one(value: Rounded | None) -> Sequence[Rounded] | None:
    finite = value is not None and np.isfinite(value.value).all() and np.isfinite(value.error).all()
    return [value] if value is not None and finite else None


def _moved(
    arguments: Sequence[Argument | None],
    moved: Callable[[Sequence[Array | None]], Sequence[Array]],
) -> Sequence[Rounded]:
    values, errors = (
        moved([getattr(a, part) if isinstance(a, Rounded) else a for a in arguments])
        for part in ("value", "error")
    )
    return [Rounded(value, error) for value, error in zip(values, errors, strict=True)]


def _nearest(function: Callable[..., Values]) -> Callable[..., Rounded]:
    """A function that takes no two arguments further apart, whatever they are."""

    def compute(attributes: Attributes, *arguments: Rounded) -> Rounded:
        error = reduce(np.maximum, (argument.error for argument in arguments))
        value = function(*(argument.value for argument in arguments))
        return Rounded(value, np.broadcast_to(error, value.shape))

    return compute


def _of(function: Callable[..., Rounded]) -> Callable[..., Rounded]:
    def compute(attributes: Attributes, *arguments: Rounded) -> Rounded:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return compute


def _cast(attributes: Attributes, x: Rounded) -> Rounded | None:
    return x if attributes["to"] in _FLOATS else None


def _power(attributes: Attributes, x: Rounded, exponent: Argument) -> Rounded | None:
    exact = not isinstance(exponent, Rounded) or exponent.is_exact
    powers = np.unique(exponent.value if isinstance(exponent, Rounded) else exponent)
    if not exact or len(powers) != 1:
        return None
    if powers[0] in (1, 2, 3, 4):
        return reduce(Rounded.__mul__, [x] * int(powers[0]))
    return x.sqrt() if powers[0] == 0.5 else None


def _gemm(
    attributes: Attributes, a: Rounded, b: Rounded, c: Rounded | None = None
) -> Rounded | None:
    left, right = (
        x.map(np.transpose) if attributes.get(name) else x
        for x, name in ((a, "transA"), (b, "transB"))
    )
    alpha, beta = (Rounded.exact(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    product = alpha * (left @ right)
    return product if c is None else product + beta * c


def _matmul(attributes: Attributes, a: Rounded, b: Rounded) -> Rounded:
    return a @ b


def _sum(attributes: Attributes, x: Rounded, axes: Array | None = None) -> Rounded | None:
    given = attributes.get("axes") if axes is None else axes
    if given is None or len(given) == 0:
        if attributes.get("noop_with_empty_axes"):
            return x
        given = range(x.value.ndim)
    summed = tuple(sorted(int(axis) % x.value.ndim for axis in given))
    total = x.sum(summed)
    return total if attributes.get("keepdims", 1) else total.map(lambda v: np.squeeze(v, summed))


def _mean(attributes: Attributes, x: Rounded, axes: Array | None = None) -> Rounded | None:
    total = _sum(attributes, x, axes)
    if total is None or total.value.size == 0:
        return None
    count = x.value.size // total.value.size
    return total * Rounded.exact(np.float64(count)).reciprocal()


def _sums(attributes: Attributes, *arguments: Rounded) -> Rounded:
    return reduce(Rounded.__add__, arguments)


_COMPUTED: dict[str, Callable[..., Rounded | None]] = {
    "Abs": _nearest(np.abs),
    "Add": _of(Rounded.__add__),
    "Cast": _cast,
    "Div": _of(lambda a, b: a * b.reciprocal()),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Max": _nearest(lambda *values: reduce(np.maximum, values)),
    "Min": _nearest(lambda *values: reduce(np.minimum, values)),
    "Mul": _of(Rounded.__mul__),
    "Neg": _of(Rounded.__neg__),
    "Pow": _power,
    "Reciprocal": _of(Rounded.reciprocal),
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "Relu": _nearest(lambda x: np.maximum(x, 0.0)),
    "Sqrt": _of(Rounded.sqrt),
    "Sub": _of(Rounded.__sub__),
    "Sum": _sums,
}
