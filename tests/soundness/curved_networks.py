"""Networks of products, softmaxes and smooth functions, and values that they reach to 50 digits.

Nothing here knows the project's own graph, so that it can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

DIGITS = 50
Values = NDArray[Any]
_NUMPY: Mapping[str, Callable[[Values], Values]] = {
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Sin": np.sin,
    "Cos": np.cos,
    "Exp": np.exp,
    "Relu": lambda x: np.maximum(x, 0),
}
_PRECISE: Mapping[str, Callable[[Values], Values]] = {
    "Tanh": np.frompyfunc(mpmath.tanh, 1, 1),
    "Sigmoid": np.frompyfunc(lambda x: 1 / (1 + mpmath.exp(-x)), 1, 1),
    "Sin": np.frompyfunc(mpmath.sin, 1, 1),
    "Cos": np.frompyfunc(mpmath.cos, 1, 1),
    "Exp": np.frompyfunc(mpmath.exp, 1, 1),
    "Relu": np.frompyfunc(lambda x: max(x, mpmath.mpf(0)), 1, 1),
}
_mpf = np.frompyfunc(lambda x: mpmath.mpf(float(x)), 1, 1)


@dataclass(frozen=True)
class Step:
    """`kind`: an operator of ONNX; of MatMul and Add the second input may be a constant."""

    kind: str
    inputs: tuple[str, ...]
    constant: Values | None = None
    shape: tuple[int, ...] = ()


@dataclass
class Curved:
    """Steps on values [N, …] from the input `x` [N, inputs]; the last one is the output."""

    inputs: int
    generator: np.random.Generator
    steps: list[Step] = field(default_factory=list)

    def add(self, kind: str, *inputs: str, **more: Any) -> str:
        self.steps.append(Step(kind, inputs, **more))
        return str(len(self.steps) - 1)

    def dense(self, x: str, inputs: int, outputs: int, gain: float = 1.0) -> str:
        """With a bias."""
        weight = self.generator.normal(size=(inputs, outputs)) * gain / np.sqrt(inputs)
        product = self.add("MatMul", x, constant=weight.astype(np.float32))
        bias = self.generator.normal(size=outputs).astype(np.float32)
        return self.add("Add", product, constant=bias)

    def at(self, x: Values, *, precise: bool = False) -> Values:
        """[N, inputs] to [N, outputs], in float64 or to DIGITS digits."""
        functions = _PRECISE if precise else _NUMPY
        values = {"x": _mpf(x) if precise else x}
        with mpmath.workdps(DIGITS):
            for number, step in enumerate(self.steps):
                given = [values[name] for name in step.inputs]
                if step.constant is not None:
                    constant = step.constant.astype(np.float64)
                    given.append(_mpf(constant) if precise else constant)
                values[str(number)] = _computed(step, given, functions)
        last: Values = values[str(len(self.steps) - 1)]
        return last

    def model(self) -> onnx.ModelProto:
        nodes, constants = [], []
        for number, step in enumerate(self.steps):
            inputs = list(step.inputs)
            constant = np.array([0, *step.shape]) if step.kind == "Reshape" else step.constant
            if constant is not None:
                inputs.append(f"{number}.constant")
                constants.append(numpy_helper.from_array(constant, inputs[-1]))
            more: dict[str, Any] = {"perm": (0, 2, 1)} if step.kind == "Transpose" else {}
            nodes.append(helper.make_node(step.kind, inputs, [str(number)], **more))
        outputs = self.at(np.zeros((1, self.inputs))).shape[1]
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, size))
            for name, size in (("x", self.inputs), (nodes[-1].output[0], outputs))
        ]
        graph = helper.make_graph(nodes, "curved", ends[:1], ends[1:], constants)
        opset = helper.make_opsetid("", 13)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def _computed(
    step: Step, given: list[Values], functions: Mapping[str, Callable[[Values], Values]]
) -> Values:
    match step.kind:
        case "MatMul":
            return given[0] @ given[1]
        case "Add":
            return given[0] + given[1]
        case "Mul":
            return given[0] * given[1]
        case "Div":
            return given[0] / given[1]
        case "Reshape":
            return given[0].reshape(len(given[0]), *step.shape)
        case "Transpose":
            return given[0].swapaxes(1, 2)
        case "Softmax":
            powers = functions["Exp"](given[0])
            shares: Values = powers / powers.sum(-1, keepdims=True)
            return shares
        case kind:
            found: Values = functions[kind](given[0])
            return found


def curved(kind: str, generator: np.random.Generator, inputs: int) -> Curved:
    """A random network of one or two outputs: a part of that kind, often behind another one, and
    perhaps the input once more.
    """
    network = Curved(inputs, generator)
    width = int(generator.integers(2, 5))
    x, size = "x", inputs
    if generator.random() < 0.6:
        x, size = _KINDS[str(generator.choice(KINDS))](network, x, size, width), width
    outputs = int(generator.integers(1, 3))
    y = network.dense(_KINDS[kind](network, x, size, width), width, outputs)
    if generator.random() < 0.5:
        network.add("Add", y, network.dense("x", inputs, outputs))
    return network


def _product(network: Curved, x: str, size: int, width: int) -> str:
    """Of two layers, then perhaps of what came of them and of a function of the input."""
    first = network.dense(x, size, width)
    found = network.add("Mul", first, network.dense(x, size, width))
    if network.generator.random() < 0.5:
        return found
    bent = network.add(_any(network, "Tanh", "Relu", "Sin"), network.dense(found, width, width))
    return network.add("Mul", bent, first)


def _square(network: Curved, x: str, size: int, width: int) -> str:
    first = network.dense(x, size, width)
    return network.add("Mul", first, first)


def _smooth(network: Curved, x: str, size: int, width: int) -> str:
    first = network.dense(x, size, width)
    bent = network.add(_any(network, *_NUMPY), first)
    again = network.dense(bent, width, width)
    return network.add("Add", network.add(_any(network, "Sigmoid", "Cos", "Tanh"), again), first)


def _softmax(network: Curved, x: str, size: int, width: int) -> str:
    """Alone, or times a function of its input."""
    weights = network.add("Softmax", network.dense(x, size, width, 2.0))
    if network.generator.random() < 0.5:
        return weights
    return network.add("Mul", weights, network.add("Tanh", network.dense(x, size, width)))


def _attention(network: Curved, x: str, size: int, width: int) -> str:
    """Of three tokens, each a layer of the input."""
    tokens = 3
    flat = network.dense(x, size, tokens * width)
    x = network.add("Reshape", flat, shape=(tokens, width))
    query, key, value = (network.dense(x, width, width) for _ in range(3))
    scores = network.add("MatMul", query, network.add("Transpose", key))
    mixed = network.add("MatMul", network.add("Softmax", scores), value)
    if network.generator.random() < 0.5:
        mixed = network.add("Add", mixed, x)
    flat = network.add("Reshape", mixed, shape=(tokens * width,))
    return network.dense(flat, tokens * width, width)


def _quotient(network: Curved, x: str, size: int, width: int) -> str:
    """By a square and one more."""
    first = network.dense(x, size, width)
    square = network.add("Mul", first, first)
    one = network.add("Add", square, constant=np.ones(width, np.float32))
    return network.add("Div", network.dense(x, size, width), one)


_KINDS: Mapping[str, Callable[[Curved, str, int, int], str]] = {
    "product": _product,
    "square": _square,
    "smooth": _smooth,
    "softmax": _softmax,
    "attention": _attention,
    "quotient": _quotient,
}
KINDS = tuple(_KINDS)


def _any(network: Curved, *kinds: str) -> str:
    return str(network.generator.choice(kinds))


def reached(network: Curved, lower: Values, upper: Values, row: Values) -> tuple[Any, float]:
    """A great value of row @ outputs in the box, to DIGITS digits, and how far values spread."""
    generator = network.generator
    points = lower + generator.random((2000, network.inputs)) * (upper - lower)
    points[:64] = np.where(generator.random((64, network.inputs)) < 0.5, lower, upper)
    totals = network.at(points) @ row
    spread = float(totals.max() - totals.min())
    best = points[totals.argmax()]
    for step in 0.1 * 0.5 ** np.arange(12):
        near = best + step * generator.normal(size=(200, network.inputs)) * (upper - lower)
        near = np.clip(np.vstack([best, near]), lower, upper)
        best = near[(network.at(near) @ row).argmax()]
    with mpmath.workdps(DIGITS):
        top = (network.at(best[None], precise=True) @ _mpf(row))[0]
    return top, spread
