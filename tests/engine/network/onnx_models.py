"""Small ONNX models for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import helper, numpy_helper

OPSET = 13


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
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
    dtype: DTypeLike = np.float32,
    **constants: ArrayLike,
) -> Path:
    """A model from `x` to `y`, of `dtype`; so are constants that are no integers or booleans."""
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    initializers = [
        numpy_helper.from_array(a.astype(dtype) if a.dtype.kind == "f" else a, name)
        for name, a in arrays.items()
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", element, input_shape)],
        [helper.make_tensor_value_info("y", element, output_shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = folder / "network.onnx"
    onnx.save(model, path)
    return path
