"""Every supported ONNX operator becomes the operator of the bound graph that it should."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx_models import OPSET, constant, node, save

from runner.engine.network.evaluate import evaluate
from runner.engine.network.graph import Graph, Op
from runner.engine.network.load import load_module, prepare
from runner.engine.network.prepared import PreparedWeights
from runner.problem.onnx_runtime import OnnxRuntime


def operators(graph: Graph) -> list[Op]:
    return [node.op for node in graph.nodes[1:]]


@dataclass(frozen=True)
class Model:
    name: str
    nodes: list[onnx.NodeProto]
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]
    expected: list[Op]
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = OPSET


IMAGE = (1, 3, 6, 6)
W, B = constant((4, 3)), constant((4,), 1)
KERNEL = constant((4, 3, 3, 3))
POOL: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}

MODELS = [
    Model(
        "gemm",
        [node("Gemm", "x w b", transB=1)],
        (1, 3),
        (1, 4),
        [Op.LINEAR],
        {"w": W, "b": B},
    ),
    Model(
        "gemm scaled, not transposed",
        [node("Gemm", "x w b", alpha=0.5, beta=2.0)],
        (1, 3),
        (1, 4),
        [Op.LINEAR],
        {"w": W.T, "b": B},
    ),
    Model("gemm without bias", [node("Gemm", "x w")], (1, 3), (1, 4), [Op.LINEAR], {"w": W.T}),
    Model(
        "matmul and add are one linear",
        [node("MatMul", "x w", "h"), node("Add", "h b")],
        (1, 3),
        (1, 4),
        [Op.LINEAR],
        {"w": W.T, "b": B},
    ),
    Model(
        "a network of vectors gets a batch dimension",
        [node("MatMul", "w x", "h"), node("Add", "h b", "r"), node("Relu", "r")],
        (3,),
        (4,),
        [Op.LINEAR, Op.RELU],
        {"w": W, "b": B},
    ),
    Model(
        "a vector that is reshaped to a batch of one",
        [node("Reshape", "x shape", "h"), node("Gemm", "h w")],
        (3,),
        (1, 4),
        [Op.LINEAR],
        {"shape": np.array([1, 3]), "w": W.T},
    ),
    Model(
        "a dynamic batch dimension",
        [node("Gemm", "x w")],
        ("batch", 3),
        ("batch", 4),
        [Op.LINEAR],
        {"w": W.T},
    ),
    Model(
        "conv with stride, padding, dilation",
        [node("Conv", "x k b", strides=[2, 1], pads=[2, 2, 2, 2], dilations=[2, 1])],
        IMAGE,
        (1, 4, 3, 8),
        [Op.CONV, Op.RESHAPE],
        {"k": KERNEL, "b": B},
    ),
    Model(
        "conv in groups without bias",
        [node("Conv", "x k", group=3)],
        IMAGE,
        (1, 6, 4, 4),
        [Op.CONV, Op.RESHAPE],
        {"k": constant((6, 1, 3, 3))},
    ),
    Model(
        "batch normalisation after a conv stays apart",
        [node("Conv", "x k", "h"), node("BatchNormalization", "h s b m v", epsilon=0.1)],
        IMAGE,
        (1, 4, 4, 4),
        [Op.CONV, Op.AFFINE, Op.RESHAPE],
        {"k": KERNEL, "s": B, "b": B, "m": B, "v": B**2 + 0.1},
    ),
    Model(
        "batch normalisation alone",
        [node("BatchNormalization", "x s b m v", epsilon=0.1)],
        (1, 4, 2, 2),
        (1, 4, 2, 2),
        [Op.AFFINE, Op.RESHAPE],
        {"s": B, "b": B, "m": B, "v": B**2 + 0.1},
    ),
    Model(
        "linear, negated, doubled and shifted, is one linear",
        [node("Gemm", "x w", "h"), node("Mul", "h two", "s"), node("Sub", "b s")],
        (1, 3),
        (1, 4),
        [Op.LINEAR],
        {"w": W.T, "b": B, "two": np.array(2.0)},
    ),
    Model(
        "a factor that is no power of two stays apart",
        [node("Gemm", "x w", "h"), node("Mul", "h b")],
        (1, 3),
        (1, 4),
        [Op.LINEAR, Op.AFFINE],
        {"w": W.T, "b": B},
    ),
    Model(
        "a shift after a bias stays apart",
        [node("Gemm", "x w b", "h"), node("Sub", "h b")],
        (1, 3),
        (1, 4),
        [Op.LINEAR, Op.AFFINE],
        {"w": W.T, "b": B},
    ),
    Model(
        "a scalar output is a vector of one",
        [node("Gemm", "x w", "h"), node("Squeeze", "h")],
        (1, 3),
        (),
        [Op.LINEAR],
        {"w": constant((3, 1))},
    ),
    Model(
        "open dimensions count as one",
        [node("Flatten", "x", "h"), node("Gemm", "h w")],
        ("batch", "length", 3),
        ("batch", 4),
        [Op.RESHAPE, Op.LINEAR],
        {"w": W.T},
    ),
    Model(
        "a batch dimension of -1",
        [node("Gemm", "x w")],
        (-1, 3),
        (-1, 4),
        [Op.LINEAR],
        {"w": W.T},
    ),
    Model(
        "nodes in any order",
        [node("Relu", "h"), node("Gemm", "x w", "h")],
        (1, 3),
        (1, 4),
        [Op.LINEAR, Op.RELU],
        {"w": W.T},
    ),
    Model(
        "a dropout whose mask is named",
        [helper.make_node("Dropout", ["x"], ["h", "mask"]), node("Relu", "h")],
        (1, 3),
        (1, 3),
        [Op.RELU],
    ),
    Model(
        "a constant shift of a node that reshapes hide a second reader of stays apart",
        [
            node("Gemm", "x w", "h"),
            node("Unsqueeze", "h two", "u"),
            node("Squeeze", "u two", "q"),
            node("Add", "q b", "s"),
            node("Sub", "q s"),
        ],
        (1, 3),
        (1, 4),
        [Op.LINEAR, Op.AFFINE, Op.SUB],
        {"w": W.T, "b": B, "two": np.array([2])},
    ),
    Model(
        "of reshapes that follow each other one remains",
        [
            node("Reshape", "x one", "h"),
            node("Reshape", "h two", "g"),
            node("Relu", "g", "r"),
            node("Flatten", "r"),
        ],
        (1, 12),
        (1, 12),
        [Op.RESHAPE, Op.RELU, Op.RESHAPE],
        {"one": np.array([1, 3, 4]), "two": np.array([1, 2, 6])},
    ),
    Model(
        "a constant shift of a node with two readers stays apart",
        [
            node("Gemm", "x w", "h"),
            node("Add", "h b", "s"),
            node("Relu", "s", "r"),
            node("Add", "h r"),
        ],
        (1, 3),
        (1, 4),
        [Op.LINEAR, Op.AFFINE, Op.RELU, Op.ADD],
        {"w": W.T, "b": B},
    ),
    *(
        Model(
            f"{kind} with a constant",
            [node(kind, inputs)],
            (1, 3, 4),
            (1, 3, 4),
            [Op.AFFINE, Op.RESHAPE],
            {"c": constant(shape) + 3},
        )
        for kind, inputs, shape in (
            ("Add", "x c", (3, 1)),
            ("Sub", "x c", (4,)),
            ("Sub", "c x", (1, 3, 4)),
            ("Mul", "c x", (1,)),
            ("Div", "x c", (3, 4)),
        )
    ),
    Model("neg", [node("Neg", "x")], (1, 3), (1, 3), [Op.AFFINE]),
    Model("relu", [node("Relu", "x")], (1, 3), (1, 3), [Op.RELU]),
    Model("sigmoid", [node("Sigmoid", "x")], (1, 3), (1, 3), [Op.SIGMOID]),
    Model("tanh", [node("Tanh", "x")], (1, 3), (1, 3), [Op.TANH]),
    Model(
        "add of two nodes",
        [node("Relu", "x", "r"), node("Add", "r x")],
        (1, 3),
        (1, 3),
        [Op.RELU, Op.ADD],
    ),
    Model(
        "sub of two nodes",
        [node("Relu", "x", "r"), node("Sub", "x r")],
        (1, 3),
        (1, 3),
        [Op.RELU, Op.SUB],
    ),
    Model("flatten", [node("Flatten", "x", axis=1)], IMAGE, (1, 108), [Op.RESHAPE]),
    Model(
        "reshape to one row",
        [node("Reshape", "x shape")],
        IMAGE,
        (1, 108),
        [Op.RESHAPE],
        {"shape": np.array([1, -1])},
    ),
    Model(
        "reshape to an image",
        [node("Reshape", "x shape", "h"), node("MaxPool", "h", **POOL)],
        (1, 16),
        (1, 1, 2, 2),
        [Op.RESHAPE, Op.MAXPOOL, Op.RESHAPE],
        {"shape": np.array([1, 1, 4, 4])},
    ),
    Model(
        "unsqueeze and squeeze",
        [node("Unsqueeze", "x axes", "h"), node("Relu", "h", "r"), node("Squeeze", "r axes")],
        (1, 3),
        (1, 3),
        [Op.RESHAPE, Op.RELU, Op.RESHAPE],
        {"axes": np.array([2])},
    ),
    Model(
        "a flatten that changes nothing is dropped",
        [node("Flatten", "x", "h"), node("Relu", "h")],
        (1, 3),
        (1, 3),
        [Op.RELU],
    ),
    Model(
        "concat",
        [node("Relu", "x", "r"), node("Concat", "x r", axis=-1)],
        (1, 2, 3),
        (1, 2, 6),
        [Op.RELU, Op.CONCAT, Op.RESHAPE],
    ),
    Model(
        "max pool",
        [node("MaxPool", "x", **POOL)],
        IMAGE,
        (1, 3, 3, 3),
        [Op.MAXPOOL, Op.RESHAPE],
    ),
    Model(
        "max pool, overlapping and padded",
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        IMAGE,
        (1, 3, 3, 3),
        [Op.MAXPOOL, Op.RESHAPE],
    ),
    Model(
        "average pool",
        [node("AveragePool", "x", kernel_shape=[3, 2], strides=[1, 2])],
        IMAGE,
        (1, 3, 4, 3),
        [Op.AVGPOOL, Op.RESHAPE],
    ),
    Model(
        "average pool that counts its padding",
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        IMAGE,
        (1, 3, 6, 6),
        [Op.AVGPOOL, Op.RESHAPE],
    ),
    Model(
        "padding before a conv is part of it",
        [node("Pad", "x pads", "p"), node("Conv", "p k")],
        IMAGE,
        (1, 4, 6, 6),
        [Op.CONV, Op.RESHAPE],
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "k": KERNEL},
    ),
    Model(
        "global average pool",
        [node("GlobalAveragePool", "x")],
        (1, 3, 4, 2),
        (1, 3, 1, 1),
        [Op.AVGPOOL, Op.RESHAPE],
    ),
    Model(
        "identity and dropout are removed",
        [node("Identity", "x", "h"), node("Dropout", "h", "d"), node("Relu", "d")],
        (1, 3),
        (1, 3),
        [Op.RELU],
    ),
    Model(
        "constants are folded",
        [
            node("Transpose", "w", "t"),
            node("Gemm", "x t", "h"),
            node("Gemm", "x t", "unused"),
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Concat", "n rest", "shape", axis=0),
            node("Reshape", "h shape"),
        ],
        (1, 3),
        (1, 2, 2),
        [Op.LINEAR],
        {"w": W, "zero": np.array([0]), "rest": np.array([2, 2])},
    ),
    *(
        Model(
            f"opset {opset}",
            [
                node("Conv", "x k", "c"),
                node("BatchNormalization", "c s s s v", "n"),
                node("Relu", "n", "r"),
                node("MaxPool", "r", "p", **POOL),
                node("Flatten", "p"),
            ],
            IMAGE,
            (1, 16),
            [Op.CONV, Op.AFFINE, Op.RELU, Op.MAXPOOL, Op.RESHAPE],
            {"k": KERNEL, "s": B, "v": B**2 + 1},
            opset,
        )
        for opset in (8, 9, 11, 13, 15, 17, 20, 22)
    ),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_operator_is_translated_and_agrees_with_onnx_runtime(model: Model, tmp_path: Path) -> None:
    path = save(
        tmp_path, model.nodes, model.input_shape, model.output_shape, model.opset, **model.constants
    )
    prepared = tmp_path / "prepared.safetensors"
    graph = prepare(path, prepared)
    assert operators(graph) == model.expected
    assert graph.node(graph.output).shape == (graph.node(graph.output).size,)

    points = np.random.default_rng(7).normal(size=(3, graph.input.size)).astype(np.float32)
    weights = PreparedWeights(prepared)
    names = {name for n in graph.nodes for name in n.parameters.values()}
    tensors = {name: weights.tensor(name) for name in names}
    outputs = evaluate(graph, tensors, torch.from_numpy(points).reshape(-1, *graph.input.shape))
    reference = OnnxRuntime(path)
    expected = np.stack([reference.run(point) for point in points])
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_weights_of_a_linear_node_lie_output_by_input_and_contiguous(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Gemm", "x w")], (1, 3), (1, 4), w=W.T)
    graph = prepare(path, tmp_path / "prepared")
    weights = PreparedWeights(tmp_path / "prepared")
    linear = graph.node(graph.output)
    weight = weights.tensor(linear.parameters["weight"])
    assert weight.is_contiguous()
    np.testing.assert_array_equal(weight.numpy(), W)
    assert weights.tensor(linear.parameters["bias"]).tolist() == [0, 0, 0, 0]


def test_large_weights_bypass_the_onnx_tools_and_are_transposed_all_the_same(
    tmp_path: Path,
) -> None:
    wide = constant((1100, 1000))
    path = save(
        tmp_path,
        [node("Transpose", "w", "t"), node("MatMul", "x t", "h"), node("Relu", "h")],
        (1, 1000),
        (1, 1100),
        w=wide,
    )
    graph = prepare(path, tmp_path / "prepared")
    assert operators(graph) == [Op.LINEAR, Op.RELU]


def test_loaded_module_takes_a_batch_and_has_no_gradients(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Gemm", "x w")], (1, 3), (1, 4), w=W.T)
    loaded = load_module(path)
    assert (loaded.input_shape, loaded.output_shape) == ((3,), (4,))
    assert loaded.module(torch.zeros(5, 3)).shape == (5, 4)
    assert not loaded.module.training
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
