"""Writes a benchmark category: ONNX networks, VNN-LIB properties, instances.csv."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from runner.training.categories.networks import Residual

Vector = NDArray[np.float64]
Shape = tuple[int, ...]

# Old enough for every ONNX Runtime that the supported Pythons have.
OPSET = 13
IR_VERSION = 8


class _Exporter:
    """Collects the nodes and weights of one ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._numbers = count(1)

    def add(self, module: nn.Module, value: str) -> str:
        """Appends the module applied to `value`; returns the name of its output."""
        match module:
            case nn.Sequential():
                for layer in module:
                    value = self.add(layer, value)
                return value
            case Residual():
                body = self.add(module.body, value)
                return self._node("Add", [body, self.add(module.shortcut, value)])
            case nn.Identity():
                return value
            case nn.Linear():
                return self._node("Gemm", [value], [module.weight, module.bias], transB=1)
            case nn.Conv2d():
                window = _window(module.kernel_size, module.stride, module.padding)
                return self._node("Conv", [value], [module.weight, module.bias], **window)
            case nn.BatchNorm2d():
                statistics = [module.running_mean, module.running_var]
                return self._node(
                    "BatchNormalization",
                    [value],
                    [module.weight, module.bias, *statistics],
                    epsilon=module.eps,
                )
            case nn.ReLU():
                return self._node("Relu", [value])
            case nn.Flatten():
                return self._node("Flatten", [value])
        raise TypeError(f"no ONNX form is known for {type(module).__name__}")

    def _node(
        self,
        operator: str,
        inputs: list[str],
        weights: Iterable[torch.Tensor | None] = (),
        **attributes: Any,
    ) -> str:
        output = f"{operator.lower()}_{next(self._numbers)}"
        for position, weight in enumerate(w for w in weights if w is not None):
            name = f"{output}.{position}"
            self.weights.append(numpy_helper.from_array(weight.detach().numpy(), name))
            inputs = [*inputs, name]
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output


def _window(kernel: Sequence[int], stride: Sequence[int], padding: object) -> dict[str, list[int]]:
    if not isinstance(padding, tuple):
        raise TypeError("padding by name has no ONNX form here")
    return {"kernel_shape": [*kernel], "strides": [*stride], "pads": [*padding, *padding]}


def write_network(path: Path, module: nn.Module, inputs: Shape, outputs: int) -> None:
    """Writes `module` as ONNX; gzip-compressed if `path` ends in .gz.

    inputs: shape of one input with its batch dimension of 1, such as (1, 64).
    """
    exporter = _Exporter()
    result = exporter.add(module.eval(), "input")
    tensor_type = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        exporter.nodes,
        "network",
        [helper.make_tensor_value_info("input", tensor_type, inputs)],
        [helper.make_tensor_value_info(result, tensor_type, (1, outputs))],
        exporter.weights,
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    path.parent.mkdir(parents=True, exist_ok=True)
    # No time stamp: the same weights give the same file.
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def robustness_property(image: Vector, label: int, radius: float, outputs: int) -> str:
    """VNN-LIB 1.0: unsafe if within `radius` (L∞, clipped to [0, 1]) another output reaches
    that of `label`.

    image: pixels in [0, 1], flattened in row-major order.
    """
    pixels = image.reshape(-1).tolist()
    lines = [f"; label {label}, radius {radius}"]
    lines += [f"(declare-const X_{i} Real)" for i in range(len(pixels))]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i, pixel in enumerate(pixels):
        lines.append(f"(assert (>= X_{i} {max(0.0, pixel - radius):.9f}))")
        lines.append(f"(assert (<= X_{i} {min(1.0, pixel + radius):.9f}))")
    others = [f"(and (>= Y_{i} Y_{label}))" for i in range(outputs) if i != label]
    lines.append(f"(assert (or {' '.join(others)}))")
    return "\n".join(lines) + "\n"


def write_instances(folder: Path, rows: Iterable[tuple[str, str, float]]) -> None:
    """Writes `instances.csv`: network and property (both relative to `folder`), timeout in s."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "instances.csv").open("w", encoding="ascii", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
