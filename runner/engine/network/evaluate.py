"""The bound graph as a plain forward computation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.engine.functions import function_of
from runner.engine.functions.family import followed
from runner.engine.network.graph import Graph, Node, Op

# Where a softmax saturates, its gradient would vanish, and with it what an attack follows.
_FARTHEST = 30.0


def differences(x: Tensor) -> Tensor:
    """Of each value [..., i] all others less it: [..., i, others], itself as well."""
    return x.unsqueeze(-2) - x.unsqueeze(-1)


def _exp_sums(x: Tensor) -> Tensor:
    """Of values [B, groups, count]; each one's gradient leads to its nearest rival."""

    def slopes(rows: Tensor) -> Tensor:
        mine = torch.eye(rows.shape[-1], dtype=torch.bool, device=x.device)
        nearest = rows.masked_fill(mine, -torch.inf).amax(-1, keepdim=True)
        nearest = torch.where(nearest.isfinite(), nearest, 0.0)
        shares = (rows - nearest).exp() * nearest.clamp(-_FARTHEST, _FARTHEST).exp()
        return shares.masked_fill(mine, 1.0)

    return followed(differences(x), torch.exp, slopes).sum(-1)


def matrices(node: Node, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The two of a MATMUL: of [..., batch, values of both] [..., batch, rows, length] and [...,
    batch, length, columns]; a part of the batch will do.
    """
    _, rows, length, columns = matmul_sizes(node)
    first, second = pairs.split([rows * length, length * columns], -1)
    return first.unflatten(-1, (rows, length)), second.unflatten(-1, (length, columns))


def matmul_sizes(node: Node) -> tuple[int, int, int, int]:
    batch, rows, length, columns = (
        int(node.attributes[name])  # type: ignore[arg-type]
        for name in ("batch", "rows", "length", "columns")
    )
    return batch, rows, length, columns


def _reciprocal(x: Tensor) -> Tensor:
    most = math.exp(_FARTHEST)
    return followed(x, torch.reciprocal, lambda x: -1 / x.clamp(-most, most).square())


FUNCTIONS: dict[Op, Callable[[Tensor], Tensor]] = {
    Op.EXP: torch.exp,
    Op.SQRT: torch.sqrt,
    Op.SQUARE: torch.square,
    Op.RECIPROCAL: _reciprocal,
    Op.SIN: torch.sin,
    Op.COS: torch.cos,
}


def evaluate(graph: Graph, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Outputs [B, outputs] of inputs [B, *input_shape], in the dtype of x.

    `tensors` holds the parameters.
    """
    values = {graph.input.name: x}
    for node in graph.nodes[1:]:
        parameters = {
            role: in_dtype(tensors[name], x.dtype) for role, name in node.parameters.items()
        }
        values[node.name] = apply(node, parameters, *(values[name] for name in node.inputs))
    return values[graph.output].flatten(1)


def apply(node: Node, parameters: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """The value of one node, [B, *shape], from those of its inputs."""
    x = inputs[0]
    attributes: dict[str, Any] = dict(node.attributes)
    match node.op:
        case Op.LINEAR:
            return F.linear(x, parameters["weight"], parameters["bias"])
        case Op.CONV:
            return F.conv2d(x, parameters["weight"], parameters["bias"], **attributes)
        case Op.RELU:
            return x.relu()
        case Op.ADD:
            return x + inputs[1]
        case Op.SUB:
            return x - inputs[1]
        case Op.AFFINE:
            return x * parameters["scale"] + parameters["shift"]
        case Op.RESHAPE:
            return x.reshape(-1, *node.shape)
        case Op.SELECT:
            return selected(x, parameters["index"], zeros=attributes["zeros"])
        case Op.CONCAT:
            return torch.cat(inputs, dim=attributes["axis"] + 1)
        case Op.MAXPOOL:
            return F.max_pool2d(x, *window_of(attributes))
        case Op.AVGPOOL:
            return F.avg_pool2d(x, *window_of(attributes), count_include_pad=True)
        case Op.SIGMOID:
            return x.sigmoid()
        case Op.TANH:
            return x.tanh()
        case Op.FUNCTION:
            return function_of(node).value(x)
        case Op.PRODUCT:
            return x[:, 0] * x[:, 1]
        case Op.MATMUL:
            first, second = matrices(node, x)
            return (first @ second).reshape(-1, *node.shape)
        case Op.EXP_SUMS:
            return _exp_sums(x)
    if node.op in FUNCTIONS:
        return FUNCTIONS[node.op](x)
    raise ValueError(f"{node.op} has no value of its own")


def selected(x: Tensor, index: Tensor, *, zeros: bool) -> Tensor:
    """The values of x [B, ...] at flat positions, zero at -1: [B, *index shape]. `zeros`: whether
    there is one.
    """
    flat = F.pad(x.flatten(1), (0, 1)) if zeros else x.flatten(1)  # -1 is the last
    if torch.is_grad_enabled() and flat.requires_grad:
        return flat[:, index]
    # Quicker, but with a gradient in no fixed order on a GPU.
    places = index.flatten() % max(1, flat.shape[1])
    return flat.index_select(1, places).reshape(-1, *index.shape)


def in_dtype(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """What counts positions stays as it is."""
    return parameter.to(dtype) if parameter.is_floating_point() else parameter


def window_of(attributes: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return attributes["kernel"], attributes["stride"], attributes["padding"]
