"""The bound graph as a torch module, which is what auto_LiRPA takes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.engine.network.evaluate import apply, in_dtype
from runner.engine.network.graph import Graph, Node, Op


class GraphModule(nn.Module):
    """[B, *input_shape] to [B, outputs], in the graph's dtype, without gradients of its weights."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._graph = graph
        dtype = getattr(torch, graph.dtype)
        self._operators = nn.ModuleList()
        for node in graph.nodes[1:]:
            parameters = {
                role: in_dtype(tensors[name], dtype) for role, name in node.parameters.items()
            }
            of_channels = node.op is Op.AFFINE and _is_of_channels(node, parameters)
            kind = _ChannelAffine if of_channels else _Operator
            self._operators.append(kind(node, parameters))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        values = {self._graph.input.name: x}
        for node, operator in zip(self._graph.nodes[1:], self._operators, strict=True):
            values[node.name] = operator(*(values[name] for name in node.inputs))
        return values[self._graph.output]


class _Operator(nn.Module):
    def __init__(self, node: Node, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._node = node
        for role, value in parameters.items():
            if value.is_floating_point():
                self.register_parameter(role, nn.Parameter(value))
            else:
                self.register_buffer(role, value)

    def forward(self, *inputs: Tensor) -> Tensor:
        parameters = dict(self.named_parameters()) | dict(self.named_buffers())
        return apply(self._node, parameters, *inputs)


class _ChannelAffine(nn.Module):
    """As a BatchNorm that norms nothing: auto_LiRPA fails on products with constants."""

    mean: Tensor
    variance: Tensor

    def __init__(self, node: Node, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        channels = node.shape[0]
        self.scale, self.shift = (
            nn.Parameter(parameters[role].reshape(-1).expand(channels).contiguous())
            for role in ("scale", "shift")
        )
        self.register_buffer("mean", torch.zeros_like(self.scale))
        self.register_buffer("variance", torch.ones_like(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.variance, self.scale, self.shift, eps=0.0)


def _is_of_channels(node: Node, parameters: Mapping[str, Tensor]) -> bool:
    """Whether there is one scale and one shift for each channel, of an image or a vector."""
    if len(node.shape) not in (1, 3):
        return False
    wanted = (node.shape[0], *(1 for _ in node.shape[1:]))
    shapes = [parameters[role].shape for role in ("scale", "shift")]
    return all(shape.numel() == 1 or shape == wanted for shape in shapes)
