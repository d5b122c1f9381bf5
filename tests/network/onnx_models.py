"""Small ONNX models for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

OPSET = 13


def node(kind: str, inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    """`inputs`: names separated by spaces; the node's name is its output's with `node_` before."""
    return helper.make_node(kind, inputs.split(), [output], f"node_{output}", **attributes)


def constant(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def save(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    input_shape: Sequence[int | str],
    output_shape: Sequence[int | str],
    opset: int = OPSET,
    **constants: ArrayLike,
) -> Path:
    """A model from `x` to `y`; constants that are not arrays of integers become float32."""
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    initializers = [
        numpy_helper.from_array(a if a.dtype == np.int64 else a.astype(np.float32), name)
        for name, a in arrays.items()
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = folder / "network.onnx"
    onnx.save(model, path)
    return path
