"""Small bound graphs as ONNX files, operator by operator, and properties that hold of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from small_networks import SmallNetwork

from runner.engine.network.graph import Node, Op

Make = Callable[..., NodeProto]
_PLAIN = {
    Op.RELU: "Relu",
    Op.ADD: "Add",
    Op.SUB: "Sub",
    Op.SIGMOID: "Sigmoid",
    Op.TANH: "Tanh",
    Op.SIN: "Sin",
    Op.COS: "Cos",
}


def save_small(path: Path, network: SmallNetwork) -> Path:
    """The graph as it is: a batch of one, nothing folded."""
    nodes, constants = [], []
    for node in network.graph.nodes[1:]:
        nodes += _translated(node)
        if node.op is Op.RESHAPE:
            shape = np.array([1, *node.shape])
            constants.append(numpy_helper.from_array(shape, f"{node.name}.shape"))
    for name in {name for node in network.graph.nodes for name in node.parameters.values()}:
        constants.append(numpy_helper.from_array(network.tensors[name].numpy(), name))
    ends = [
        helper.make_tensor_value_info(node.name, TensorProto.FLOAT, (1, *node.shape))
        for node in (network.graph.input, network.graph.node(network.graph.output))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], constants)
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def _translated(node: Node) -> list[NodeProto]:
    def made(kind: str, inputs: Sequence[str], output: str = node.name, **more: Any) -> NodeProto:
        return helper.make_node(kind, inputs, [output], **more)

    weights = [node.parameters[role] for role in ("weight", "bias") if role in node.parameters]
    match node.op:
        case Op.LINEAR:
            return [made("Gemm", [*node.inputs, *weights], transB=1)]
        case Op.CONV:
            more: dict[str, Any] = {
                "dilations": node.attributes["dilation"],
                "group": node.attributes["groups"],
            }
            return [made("Conv", [*node.inputs, *weights], **_window(node), **more)]
        case Op.AFFINE:
            scale, shift = (node.parameters[role] for role in ("scale", "shift"))
            scaled = f"{node.name}.scaled"
            return [made("Mul", [*node.inputs, scale], scaled), made("Add", [scaled, shift])]
        case Op.RESHAPE:
            return [made("Reshape", [*node.inputs, f"{node.name}.shape"])]
        case Op.CONCAT:
            return [made("Concat", node.inputs, axis=int(str(node.attributes["axis"])) + 1)]
        case Op.PRODUCT:  # of two flat values
            parts = [f"{node.name}.{index}" for index in (0, 1)]
            return [
                helper.make_node("Split", node.inputs, parts, axis=1),
                made("Mul", parts, f"{node.name}.both"),
                made("Flatten", [f"{node.name}.both"]),
            ]
        case Op.FUNCTION:  # of ONNX's own, without attributes
            return [made(str(node.attributes["function"]), node.inputs)]
        case Op.SELECT:  # of flat values, to flat ones, without zeros
            return [made("Gather", [*node.inputs, node.parameters["index"]], axis=1)]
        case Op.SQUARE:
            return [made("Mul", [*node.inputs, *node.inputs])]
        case Op.MAXPOOL | Op.AVGPOOL:
            kind = "MaxPool" if node.op is Op.MAXPOOL else "AveragePool"
            more = {} if node.op is Op.MAXPOOL else {"count_include_pad": 1}
            kernel = node.attributes["kernel"]
            return [made(kind, node.inputs, kernel_shape=kernel, **_window(node), **more)]
    return [made(_PLAIN[node.op], node.inputs)]


def _window(node: Node) -> dict[str, Any]:
    padding = node.attributes["padding"]
    return {"strides": node.attributes["stride"], "pads": (*padding, *padding)}  # type: ignore[misc]


def save_true_property(path: Path, network: SmallNetwork, radius: float, room: float) -> Path:
    """Inputs around zero; an output that is less, by `room`, than descent can reach is unsafe."""
    inputs, outputs = network.graph.input, network.graph.node(network.graph.output).size
    names = [f"X_{index}" for index in range(inputs.size)]
    lines = [f"(declare-const {name} Real)" for name in names]
    lines += [f"(declare-const Y_{index} Real)" for index in range(outputs)]
    lines += [f"(assert (>= {name} {-radius}))(assert (<= {name} {radius}))" for name in names]
    limits = [_least(network, radius, index) - room for index in range(outputs)]
    unsafe = [f"(and (<= Y_{index} {limit:.6f}))" for index, limit in enumerate(limits)]
    path.write_text("\n".join([*lines, f"(assert (or {' '.join(unsafe)}))", ""]))
    return path


def _least(network: SmallNetwork, radius: float, output: int) -> float:
    generator = torch.Generator().manual_seed(0)
    x = radius * (2 * torch.rand(256, *network.graph.input.shape, generator=generator) - 1)
    for step in range(40):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(network.outputs(x)[:, output].sum(), x)
        x = (x.detach() - radius * 0.9**step * gradient.sign()).clamp(-radius, radius)
    return float(network.outputs(x)[:, output].min())
