"""Random questions whose right answers are known in rational arithmetic.

First layers have weights of 1 to 1e8 that cancel with their biases; boxes are one point, a few
steps of the network's type, or wide. A threshold lies within 1e-3 to 1e-9 of the exact maximum.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import onnx
from curved_networks import DIGITS, KINDS, curved, reached
from exact_networks import Exact, Floats, Layer, Network, fractions, greatest, value
from onnx import TensorProto, helper, numpy_helper

DISTANCES = [Fraction(1, 10**exponent) for exponent in range(3, 10)]


@dataclass(frozen=True)
class Question:
    """`exists`: whether a point of the box meets the property in exact arithmetic."""

    network: Path
    property: Path
    exists: bool
    about: str


def question(seed: int, folder: Path) -> Question:
    """Question number `seed`, written to files."""
    generator = np.random.default_rng(seed)
    kind = ("dense", "dense", "residual", "conv", "maxpool", "avgpool")[seed % 6]
    images = kind in ("conv", "maxpool", "avgpool")
    # ONNX Runtime has no convolution in float64.
    dtype: type[np.floating] = np.float64 if seed % 5 == 4 and not images else np.float32
    scale = 10.0 ** generator.integers(0, 9)
    size = 10.0 ** generator.integers(-1, 4)
    shape = (1, 3, 3) if images else (int(generator.integers(1, 5)),)
    centre = (generator.normal(size=shape) * size).astype(dtype)
    network = _network(kind, generator, centre, scale, dtype, shallow=seed % 12 < 2)
    row = fractions(generator.choice([-1.0, 0.5, 1.0], size=_outputs(network)))
    lower, upper, width = _box(generator, centre, scale)
    top = _top(network, generator, lower, upper, row)
    exists = bool(seed % 2)
    distance = DISTANCES[int(generator.integers(len(DISTANCES)))] * max(1, abs(int(top)))
    if not exists and np.count_nonzero(lower != upper) > 1:
        exists = True  # the exact maximum is known along one input only
    threshold = top - distance if exists else top + distance
    about = f"{kind} {np.dtype(dtype).name} scale {scale:g} inputs {size:g} box {width}"
    paths = folder / f"{seed}.onnx", folder / f"{seed}.vnnlib"
    onnx.save(_model(network), paths[0])
    paths[1].write_text(_vnnlib(lower, upper, row, threshold), encoding="ascii")
    return Question(*paths, exists, f"{about} distance {float(distance):g}")


def curved_question(seed: int, folder: Path) -> Question:
    """Of a network of products and smooth functions: a value that it reaches is asked for, less
    1e-1 to 1e-5 of how far its values spread, so that `unsat` is always wrong.
    """
    generator = np.random.default_rng(seed)
    kind, inputs = KINDS[seed % len(KINDS)], int(generator.integers(1, 4))
    network = curved(kind, generator, inputs)
    centre = generator.normal(size=inputs).astype(np.float32)
    reach = np.float32(10.0 ** generator.uniform(-2, 0.3))
    lower, upper = centre - reach, centre + reach
    if inputs > 1 and generator.random() < 0.3:
        upper[0] = lower[0]
    outputs = network.at(np.zeros((1, inputs))).shape[1]
    row = generator.choice([-1.0, 0.5, 1.0], size=outputs)
    top, spread = reached(network, lower.astype(np.float64), upper.astype(np.float64), row)
    share = 10.0 ** -int(generator.integers(1, 6))
    threshold = Fraction(mpmath.nstr(top, DIGITS - 10)) - Fraction(share * spread)
    paths = folder / f"curved_{seed}.onnx", folder / f"curved_{seed}.vnnlib"
    onnx.save(network.model(), paths[0])
    paths[1].write_text(_vnnlib(lower, upper, fractions(row), threshold), encoding="ascii")
    about = f"{kind} box {float(reach):.3g} distance {share:g} of {spread:.3g}"
    return Question(*paths, exists=True, about=about)


def _outputs(network: Network) -> int:
    last = network.layers[-1].weight
    assert last is not None
    return len(last)


def _network(
    kind: str,
    generator: np.random.Generator,
    centre: Floats,
    scale: float,
    dtype: type[np.floating],
    *,
    shallow: bool,
) -> Network:
    """`shallow`: of one hidden layer, where it is dense."""

    def dense(outputs: int, inputs: int, gain: float = 1.0) -> Layer:
        weight: Floats = (generator.normal(size=(outputs, inputs)) * gain).astype(dtype)
        return Layer("gemm", weight, generator.normal(size=outputs).astype(dtype))

    relu, outputs = Layer("relu"), int(generator.integers(1, 3))
    if kind in ("dense", "residual"):
        width = int(generator.integers(2, 5))
        first = _cancelling((width, centre.size), generator, centre.reshape(-1), scale, dtype)
        middle = [dense(width, width), relu]
        if shallow:
            middle = []
        if kind == "residual":
            middle = [Layer("residual", inner=(dense(width, width), relu)), relu]
        layers = [first, relu, *middle, dense(outputs, width)]
    else:
        weight: Floats = (generator.normal(size=(2, 1, 2, 2)) * scale).astype(dtype)
        seen = centre[0, :2, :2].reshape(-1).astype(np.float64)
        bias = -(weight.reshape(2, 4).astype(np.float64) @ seen).astype(dtype)
        pool = [] if kind == "conv" else [Layer(kind)]
        left = 8 if kind == "conv" else 2
        layers = [Layer("conv", weight, bias), relu, *pool, Layer("flatten"), dense(outputs, left)]
    return Network(centre.shape, tuple(layers), dtype)


def _cancelling(
    shape: tuple[int, int],
    generator: np.random.Generator,
    x: Floats,
    scale: float,
    dtype: type[np.floating],
) -> Layer:
    weight: Floats = (generator.normal(size=shape) * scale).astype(dtype)
    bias = -(weight.astype(np.float64) @ x.astype(np.float64)) + generator.normal(size=shape[0])
    return Layer("gemm", weight, bias.astype(dtype))


def _box(
    generator: np.random.Generator, centre: Floats, scale: float
) -> tuple[Floats, Floats, str]:
    """One point, up to 60 steps of one input or of all, or as wide as the first layer cares."""
    lower, upper = centre.copy(), centre.copy()
    width = ("point", "steps", "steps of all", "wide", "wide")[int(generator.integers(5))]
    if width == "point":
        return lower, upper, width
    flat = upper.reshape(-1)
    chosen = [int(generator.integers(flat.size))] if width != "steps of all" else range(flat.size)
    for axis in chosen:
        if width == "wide":
            reach = centre.dtype.type(generator.uniform(1, 4) / scale)
            flat[axis] += reach + np.spacing(flat[axis])
            continue
        for _ in range(int(generator.integers(1, 60 if len(chosen) == 1 else 4))):
            flat[axis] = np.nextafter(flat[axis], centre.dtype.type(np.inf))
    return np.minimum(lower, upper), np.maximum(lower, upper), width


def _top(
    network: Network, generator: np.random.Generator, lower: Floats, upper: Floats, row: Exact
) -> Fraction:
    """The greatest value that is known to be reached: exact along one input, else of corners."""
    free = np.flatnonzero(lower != upper)
    low, high = fractions(lower), fractions(upper)
    if len(free) == 1:
        return greatest(network, low, int(free[0]), high.reshape(-1)[free[0]], row)
    corners = [low, high]
    corners += [np.where(generator.random(low.shape) < 0.5, low, high) for _ in range(14)]
    reached: list[Fraction] = [row @ value(network, corner) for corner in corners]
    return max(reached)


def _model(network: Network) -> onnx.ModelProto:
    kind = TensorProto.DOUBLE if network.dtype is np.float64 else TensorProto.FLOAT
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    output = _nodes(network.layers, "x", nodes, constants)
    graph = helper.make_graph(
        nodes,
        "question",
        [helper.make_tensor_value_info("x", kind, (1, *network.shape))],
        [helper.make_tensor_value_info(output, kind, (1, _outputs(network)))],
        constants,
    )
    opset = helper.make_opsetid("", 13)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def _nodes(
    layers: tuple[Layer, ...],
    x: str,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
) -> str:
    for layer in layers:
        name, inputs = f"v{len(nodes)}", [x]
        options: dict[str, Any] = {}
        if layer.weight is not None and layer.bias is not None:
            inputs += [f"{name}.weight", f"{name}.bias"]
            pairs = zip(inputs[1:], (layer.weight, layer.bias), strict=True)
            constants += [numpy_helper.from_array(tensor, label) for label, tensor in pairs]
        match layer.kind:
            case "gemm":
                options, operator = {"transB": 1}, "Gemm"
            case "conv":
                operator = "Conv"
            case "relu":
                operator = "Relu"
            case "maxpool" | "avgpool":
                operator = "MaxPool" if layer.kind == "maxpool" else "AveragePool"
                options = {"kernel_shape": (2, 2), "strides": (2, 2)}
            case "flatten":
                operator = "Flatten"
            case _:
                operator, inputs = "Add", [x, _nodes(layer.inner, x, nodes, constants)]
                name = f"v{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [name], **options))
        x = name
    return x


def _vnnlib(lower: Floats, upper: Floats, row: Exact, threshold: Fraction) -> str:
    """Numbers in full: the threshold is a fraction that is rounded to 30 places."""
    lines = [f"(declare-const X_{index} Real)" for index in range(lower.size)]
    lines += [f"(declare-const Y_{index} Real)" for index in range(len(row))]
    ends = zip(lower.reshape(-1), upper.reshape(-1), strict=True)
    for index, (low, high) in enumerate(ends):
        lines.append(f"(assert (>= X_{index} {_decimal(Fraction(float(low)))}))")
        lines.append(f"(assert (<= X_{index} {_decimal(Fraction(float(high)))}))")
    terms = " ".join(f"(* {float(c)} Y_{index})" for index, c in enumerate(row))
    total = f"(+ {terms})" if len(row) > 1 else terms
    lines.append(f"(assert (>= {total} {_decimal(threshold)}))")
    return "\n".join(lines) + "\n"


def _decimal(number: Fraction) -> str:
    """Exact where it is a float; else within 1e-60, which is less than any distance here."""
    sign, size = ("-" if number < 0 else ""), abs(number)
    places = 60
    digits = str(size.numerator * 10**places // size.denominator).rjust(places + 1, "0")
    return f"{sign}{digits[:-places]}.{digits[-places:].rstrip('0') or '0'}"
