"""What a proof is about are the weights of the file, to the last bit."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx_models import constant, node, save

from runner.engine.network.convert import converted
from runner.engine.network.graph import Graph, Node, Op
from runner.engine.network.load import load_module, prepare
from runner.engine.network.prepared import PreparedWeights, read_graph
from runner.engine.network.translation import TRANSLATIONS
from runner.problem.onnx_runtime import OnnxRuntime

Parameters = dict[str, np.ndarray]
_exact = np.vectorize(Fraction, otypes=[object])


def prepared(path: Path) -> tuple[Graph, list[Parameters]]:
    """The graph, and the parameters of each node but the input."""
    prepare(path, path.with_suffix(".prepared"))
    graph = read_graph(path.with_suffix(".prepared"))
    weights = PreparedWeights(path.with_suffix(".prepared"))
    return graph, [
        {role: weights.tensor(name).numpy() for role, name in node.parameters.items()}
        for node in graph.nodes[1:]
    ]


def only(graph: Graph, parameters: list[Parameters], op: Op) -> tuple[Node, Parameters]:
    ((node, values),) = (
        (n, p) for n, p in zip(graph.nodes[1:], parameters, strict=True) if n.op is op
    )
    return node, values


def test_a_float64_network_keeps_its_weights(tmp_path: Path) -> None:
    weight, bias = np.array([[16777217.0]]), np.array([-16777216.0])
    path = save(
        tmp_path, [node("Gemm", "x w b")], (1, 1), (1, 1), dtype=np.float64, w=weight, b=bias
    )
    graph, parameters = prepared(path)
    assert graph.dtype == "float64"
    (linear,) = parameters
    assert linear["weight"].dtype == linear["bias"].dtype == np.float64
    np.testing.assert_array_equal(linear["weight"], weight)
    np.testing.assert_array_equal(linear["bias"], bias)


def test_a_float64_network_is_a_module_of_float64(tmp_path: Path) -> None:
    weight = np.array([[16777217.0]])
    loaded = load_module(
        save(tmp_path, [node("Gemm", "x w")], (1, 1), (1, 1), dtype=np.float64, w=weight)
    )
    assert loaded.module(torch.ones(1, 1, dtype=torch.float64)).item() == 16777217.0


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_float32_and_float16_weights_are_kept_in_float32(dtype: type, tmp_path: Path) -> None:
    nodes = [node("Conv", "x k b", "c"), node("Flatten", "c", "f"), node("Gemm", "f w")]
    constants: dict[str, Any] = {
        "k": constant((4, 3, 3, 3)),
        "b": constant((4,)),
        "w": constant((16, 2)),
    }
    path = save(tmp_path, nodes, (1, 3, 4, 4), (1, 2), dtype=dtype, **constants)
    graph, parameters = prepared(path)
    assert graph.dtype == "float32"
    conv, linear = (only(graph, parameters, op)[1] for op in (Op.CONV, Op.LINEAR))
    for found, name in ((conv["weight"], "k"), (conv["bias"], "b"), (linear["weight"].T, "w")):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, constants[name].astype(dtype))


def check_errors(values: Parameters, role: str, exact: np.ndarray) -> None:
    """`exact`: fractions, or bounds of what cannot be one."""
    distance = abs(_exact(values[role].reshape(-1)) - exact)
    assert (distance <= _exact(values[f"{role}_error"].reshape(-1))).all()


def test_a_division_is_a_factor_with_an_error(tmp_path: Path) -> None:
    divisor = np.array([3.0, 7.0, 1e-3], dtype=np.float32)
    path = save(tmp_path, [node("Div", "x c")], (1, 3), (1, 3), c=divisor)
    _, affine = only(*prepared(path), Op.AFFINE)
    check_errors(affine, "scale", 1 / _exact(divisor.astype(float)))
    assert (affine["scale_error"] <= 1e-15 * abs(affine["scale"])).all()
    assert "shift_error" not in affine


def test_a_division_by_a_power_of_two_is_exact(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Div", "x c")], (1, 2), (1, 2), c=np.array([4.0, -0.5]))
    _, affine = only(*prepared(path), Op.AFFINE)
    assert set(affine) == {"scale", "shift"}
    assert affine["scale"].tolist() == [0.25, -2.0]


def test_batch_normalisation_is_a_factor_and_a_shift_with_errors(tmp_path: Path) -> None:
    gain, offset, mean = (constant((5,), seed) for seed in range(3))
    variance = constant((5,), 3) ** 2
    constants: dict[str, Any] = {
        "k": constant((5, 1, 1, 1), 4),
        "g": gain,
        "o": offset,
        "m": mean,
        "v": variance,
    }
    nodes = [node("Conv", "x k", "c"), node("BatchNormalization", "c g o m v", epsilon=0.1)]
    path = save(tmp_path, nodes, (1, 1, 2, 2), (1, 5, 2, 2), **constants)
    graph, parameters = prepared(path)
    np.testing.assert_array_equal(only(graph, parameters, Op.CONV)[1]["weight"], constants["k"])
    _, affine = only(graph, parameters, Op.AFFINE)
    epsilon = Fraction(float(np.float32(0.1)))
    for index in range(5):
        statistics = (Fraction(float(values[index])) for values in (gain, offset, mean, variance))
        g, o, m, v = statistics
        scale, shift = (affine[role].reshape(-1)[index] for role in ("scale", "shift"))
        scale_error, shift_error = (
            Fraction(affine[f"{role}_error"].reshape(-1)[index]) for role in ("scale", "shift")
        )
        root = Fraction(np.sqrt(float(v + epsilon)))
        low, high = (g / (root * (1 + sign * Fraction(1, 2**51))) for sign in (1, -1))
        low, high = min(low, high), max(low, high)
        assert Fraction(scale) - scale_error <= high
        assert Fraction(scale) + scale_error >= low
        assert min(o - m * low, o - m * high) <= Fraction(shift) + shift_error
        assert max(o - m * low, o - m * high) >= Fraction(shift) - shift_error
        assert 0 < scale_error < 1e-15 * abs(Fraction(scale)) * 2
        assert 0 < shift_error < 1e-14


def test_factors_of_a_gemm_stand_beside_its_weight(tmp_path: Path) -> None:
    weight, bias = constant((3, 4)), constant((4,))
    path = save(
        tmp_path, [node("Gemm", "x w b", alpha=0.3, beta=0.7)], (1, 3), (1, 4), w=weight, b=bias
    )
    graph, parameters = prepared(path)
    np.testing.assert_array_equal(only(graph, parameters, Op.LINEAR)[1]["weight"], weight.T)
    _, affine = only(graph, parameters, Op.AFFINE)
    assert set(affine) == {"scale", "shift"}
    assert affine["scale"] == np.float32(0.3)
    expected = _exact(bias.astype(float)) * Fraction(float(np.float32(0.7)))
    assert (_exact(affine["shift"]) == expected).all()


def test_a_factor_of_two_is_multiplied_in_unless_a_weight_is_too_small(tmp_path: Path) -> None:
    for least, ops in ((1.0, [Op.LINEAR]), (1e-45, [Op.LINEAR, Op.AFFINE])):
        path = save(
            tmp_path,
            [node("Gemm", "x w", "h"), node("Mul", "h c")],
            (1, 2),
            (1, 1),
            w=np.array([[1.5], [least]]),
            c=np.array([0.5]),
        )
        graph, parameters = prepared(path)
        assert [n.op for n in graph.nodes[1:]] == ops
        assert parameters[0]["weight"][0, 0] == (0.75 if len(ops) == 1 else 1.5)


def test_constants_that_move_weights_are_folded_to_the_last_bit(tmp_path: Path) -> None:
    weight = constant((4, 6))
    nodes = [
        node("Transpose", "w", "t"),
        node("Slice", "t start stop", "s"),
        node("Concat", "s s", "c", axis=0),
        node("Neg", "c", "n"),
        node("MatMul", "x n"),
    ]
    constants: dict[str, Any] = {"w": weight, "start": np.array([1]), "stop": np.array([4])}
    path = save(tmp_path, nodes, (1, 6), (1, 4), **constants)
    _, linear = only(*prepared(path), Op.LINEAR)
    expected = -np.concatenate([weight.T[1:4], weight.T[1:4]])
    np.testing.assert_array_equal(linear["weight"], expected.T)


def test_constants_that_are_computed_exactly_are_folded(tmp_path: Path) -> None:
    nodes = [
        node("Mul", "w half", "m"),
        node("Add", "b one", "d"),
        node("Gemm", "x m d"),
    ]
    weight = constant((3, 2))
    constants: dict[str, Any] = {
        "w": weight,
        "half": np.array(0.5),
        "b": np.array([2.0, 3.5]),
        "one": np.ones(1),
    }
    _, linear = only(*prepared(save(tmp_path, nodes, (1, 3), (1, 2), **constants)), Op.LINEAR)
    np.testing.assert_array_equal(linear["weight"], weight.T / 2)
    assert linear["bias"].tolist() == [3.0, 4.5]


def test_shapes_that_depend_on_shapes_are_folded(tmp_path: Path) -> None:
    nodes = []
    for index, (before, after) in enumerate((("x", "f"), ("f", "g"), ("g", "y"))):
        nodes += [
            node("Shape", before, f"shape{index}"),
            node("ReduceProd", f"shape{index}", f"size{index}", keepdims=1),
            node("Concat", f"one size{index}", f"target{index}", axis=0),
            node("Reshape", f"{before} target{index}", after),
        ]
    path = save(tmp_path, nodes, (1, 2, 3), (1, 6), one=np.array([1]))
    network = converted(path, TRANSLATIONS.keys())
    assert network.shapes["y"] == (1, 6)
    assert {n.op_type for n in network.draft.graph.node} == {"Reshape"}


def test_a_large_weight_is_kept_out_of_the_tools_and_is_the_same(tmp_path: Path) -> None:
    wide = constant((1100, 1000))
    nodes = [node("Transpose", "w", "t"), node("MatMul", "x t", "h"), node("Pad", "h pads")]
    path = save(tmp_path, nodes, (1, 1000), (1, 1100), w=wide, pads=np.zeros(4, dtype=np.int64))
    _, linear = only(*prepared(path), Op.LINEAR)
    np.testing.assert_array_equal(linear["weight"], wide)


def test_a_shared_weight_and_an_unused_one_do_no_harm(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w", "h"), node("Relu", "h", "r"), node("Gemm", "r w")]
    weight = constant((3, 3))
    path = save(tmp_path, nodes, (1, 3), (1, 3), w=weight, unused=np.array([np.nan]))
    _, parameters = prepared(path)
    for found in (parameters[0]["weight"], parameters[2]["weight"]):
        np.testing.assert_array_equal(found, weight.T)


def test_the_old_style_of_weights_among_the_inputs_is_read(tmp_path: Path) -> None:
    path = save(
        tmp_path, [node("Gemm", "x w b")], (1, 3), (1, 2), 8, w=constant((3, 2)), b=[1.0, 2.0]
    )
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    model.ir_version = 3
    path.write_bytes(model.SerializeToString())
    _, linear = only(*prepared(path), Op.LINEAR)
    np.testing.assert_array_equal(linear["weight"], constant((3, 2)).T)
    expected = OnnxRuntime(path).run(np.ones(3))
    np.testing.assert_allclose(expected, constant((3, 2)).sum(0) + np.array([1, 2]), rtol=1e-6)
