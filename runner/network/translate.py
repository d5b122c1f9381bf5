"""From auto_LiRPA's nodes to the bound graph: plain data, and its tensors beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from runner.errors import InstanceError
from runner.network.graph import Attribute, Graph, Node, Op
from runner.vocabulary import Cause

Shape = tuple[int, ...]


def graph_of(bounded: Any, source: str) -> tuple[Graph, dict[str, Tensor]]:
    """The bound graph of a BoundedModule made with a batch of two or more, and its tensors.

    Computed constants and the operators applied with them become AFFINE or part of a weight;
    nodes that do not reach the output are dropped; the output is flat. Raises InstanceError
    UNSUPPORTED_OPERATOR, MALFORMED_NETWORK. `source` names the network's file.
    """
    translation = _Translation(bounded, source)
    translation.run()
    return _simplified(translation.graph(), translation.tensors)


class _Translation:
    """Walks a BoundedModule in its (topological) order."""

    def __init__(self, bounded: Any, source: str) -> None:
        self.bounded = bounded
        self.source = source
        self.nodes: dict[str, Node] = {}  # by name, in order
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[str, str] = {}  # auto_LiRPA's name of a computed value -> ours

    def run(self) -> None:
        for node in self.bounded._modules.values():
            kind = type(node).__name__.removeprefix("Bound")
            if kind == "Input":
                self._add(node, Op.INPUT)
            elif any(parent.name in self.names for parent in node.inputs):
                self._translate(node, kind)

    def graph(self) -> Graph:
        output = self.names.get(self.bounded.final_name)
        if output is None:
            message = f"{self.source}: the output does not depend on the input"
            raise InstanceError(Cause.MALFORMED_NETWORK, message)
        size = self.nodes[output].size
        if self.nodes[output].shape != (size,):
            self.nodes["output"] = Node("output", Op.RESHAPE, (output,), (size,))
            output = "output"
        return Graph(tuple(self.nodes.values()), output)

    def _translate(self, node: Any, kind: str) -> None:
        rules: dict[str, Callable[[Any], None]] = {
            "Linear": self._linear,
            "MatMul": self._linear,
            "Conv": self._conv,
            "Add": self._add_or_subtract,
            "Sub": self._add_or_subtract,
            "Mul": self._scaled,
            "Div": self._scaled,
            "Neg": self._negated,
            "BatchNormalization": self._normalized,
            "Flatten": self._reshape,
            "Reshape": self._reshape,
            "Concat": self._concat,
            "MaxPool": self._pool,
            "AveragePool": self._pool,
            "Relu": lambda node: self._add(node, Op.RELU),
            "Sigmoid": lambda node: self._add(node, Op.SIGMOID),
            "Tanh": lambda node: self._add(node, Op.TANH),
        }
        if kind not in rules:
            raise self._unsupported(node, f"supported: {', '.join(sorted(rules))}")
        rules[kind](node)

    def _unsupported(self, node: Any, reason: str) -> InstanceError:
        kind = type(node).__name__.removeprefix("Bound")
        return InstanceError(
            Cause.UNSUPPORTED_OPERATOR,
            f"{self.source}: operator {kind} (node {node.name!r}) is not supported: {reason}",
        )

    def _add(
        self,
        node: Any,
        op: Op,
        attributes: Mapping[str, Attribute] | None = None,
        **parameters: Tensor,
    ) -> None:
        """A node on the computed inputs of `node`, in their order."""
        name = f"{op}_{len(self.nodes)}" if self.nodes else "input"
        inputs = tuple(self.names[i.name] for i in node.inputs if i.name in self.names)
        for role, tensor in parameters.items():
            self.tensors[f"{name}.{role}"] = tensor.detach().float().contiguous()
        roles = {role: f"{name}.{role}" for role in parameters}
        self.nodes[name] = Node(name, op, inputs, self._shape(node), attributes or {}, roles)
        self.names[node.name] = name

    def _shape(self, node: Any) -> Shape:
        batch = self.bounded.global_input.shape[0]
        shape = tuple(node.output_shape)
        if len(shape) < 2 or shape[0] != batch:
            raise self._unsupported(node, f"its output {list(shape)} has lost the batch dimension")
        return shape[1:]

    def _computed(self, node: Any, index: int = 0) -> Node | None:
        """The node behind an input; None for a constant."""
        name = self.names.get(node.inputs[index].name)
        return None if name is None else self.nodes[name]

    def _constant(self, node: Any, index: int) -> Tensor:
        if self._computed(node, index) is not None:
            raise self._unsupported(node, f"its input {index} is computed, not constant")
        value: Tensor = self.bounded.get_forward_value(node.inputs[index])
        return value.detach()

    def _operand(self, node: Any, index: int) -> Tensor:
        """A constant operand, broadcast to the node's shape."""
        shape = self._shape(node)
        value = self._constant(node, index)
        if value.ndim == len(shape) + 1 and value.shape[0] == 1:
            value = value[0]
        try:
            return value.expand(shape)
        except RuntimeError as error:
            message = f"a constant of shape {list(value.shape)} beside {list(shape)}"
            raise self._unsupported(node, message) from error

    def _linear(self, node: Any) -> None:
        source = self._computed(node)
        if source is None or len(source.shape) != 1:
            raise self._unsupported(node, "only a flat computed value times a constant matrix is")
        attributes = node.attr
        weight = self._constant(node, 1)
        if not attributes.get("transB", 0):
            weight = weight.T
        if attributes.get("alpha", 1.0) != 1.0:  # else no copy: weights may be large
            weight = weight * attributes["alpha"]
        bias = weight.new_zeros(weight.shape[0])
        if len(node.inputs) > 2:
            bias = (self._constant(node, 2) * attributes.get("beta", 1.0)).expand_as(bias)
        self._add(node, Op.LINEAR, weight=weight, bias=bias)

    def _conv(self, node: Any) -> None:
        weight = self._constant(node, 1)
        bias = self._constant(node, 2) if len(node.inputs) > 2 else weight.new_zeros(len(weight))
        attributes: dict[str, Attribute] = {
            "stride": self._pair(node, "strides"),
            "padding": self._padding(node),
            "dilation": self._pair(node, "dilations"),
            "groups": int(node.attr["group"]),
        }
        self._add(node, Op.CONV, attributes, weight=weight, bias=bias)

    def _pool(self, node: Any) -> None:
        op = Op.MAXPOOL if type(node).__name__ == "BoundMaxPool" else Op.AVGPOOL
        attributes = {
            "kernel": self._pair(node, "kernel_shape"),
            "stride": self._pair(node, "strides"),
            "padding": self._padding(node),
        }
        self._add(node, op, attributes)

    def _pair(self, node: Any, attribute: str) -> tuple[int, ...]:
        values = tuple(int(value) for value in node.attr[attribute])
        if len(values) != 2:
            raise self._unsupported(node, f"only two-dimensional ones are; {attribute} {values}")
        return values

    def _padding(self, node: Any) -> tuple[int, ...]:
        pads = tuple(int(value) for value in node.attr.get("pads", (0, 0, 0, 0)))
        if len(pads) != 4 or pads[:2] != pads[2:]:
            raise self._unsupported(node, f"only symmetric padding in two dimensions is; {pads}")
        return pads[:2]

    def _add_or_subtract(self, node: Any) -> None:
        subtract = type(node).__name__ == "BoundSub"
        first, second = self._computed(node, 0), self._computed(node, 1)
        if first is not None and second is not None:
            if first.shape != second.shape:
                message = f"its inputs differ in shape: {first.shape} and {second.shape}"
                raise self._unsupported(node, message)
            self._add(node, Op.SUB if subtract else Op.ADD)
        elif first is not None:
            shift = self._operand(node, 1)
            self._affine(node, torch.ones_like(shift), -shift if subtract else shift)
        else:
            shift = self._operand(node, 0)
            ones = torch.ones_like(shift)
            self._affine(node, -ones if subtract else ones, shift)

    def _scaled(self, node: Any) -> None:
        divide = type(node).__name__ == "BoundDiv"
        index = 1 if self._computed(node, 0) is not None else 0
        if divide and index == 0:
            raise self._unsupported(node, "a constant is divided by a computed value")
        factor = self._operand(node, index)
        scale = factor.reciprocal() if divide else factor
        self._affine(node, scale, torch.zeros_like(scale))

    def _negated(self, node: Any) -> None:
        ones = torch.ones(self._shape(node))
        self._affine(node, -ones, torch.zeros_like(ones))

    def _normalized(self, node: Any) -> None:
        shape = self._shape(node)
        gain, offset, mean, variance = (self._constant(node, index) for index in range(1, 5))
        scale = gain / (variance + node.attr["epsilon"]).sqrt()
        shift = offset - mean * scale
        spread = (-1, *(1 for _ in shape[1:]))
        self._affine(node, scale.reshape(spread).expand(shape), shift.reshape(spread).expand(shape))

    def _affine(self, node: Any, scale: Tensor, shift: Tensor) -> None:
        source = next(
            self.nodes[self.names[parent.name]]
            for parent in node.inputs
            if parent.name in self.names
        )
        if source.shape != self._shape(node):
            raise self._unsupported(node, "a constant that makes its input larger")
        if not torch.isfinite(scale).all():
            raise self._unsupported(node, "it divides by zero")
        self._add(node, Op.AFFINE, scale=scale, shift=shift)

    def _reshape(self, node: Any) -> None:
        source = self._computed(node)
        if source is not None and source.shape == self._shape(node):
            self.names[node.name] = source.name
        else:
            self._add(node, Op.RESHAPE)

    def _concat(self, node: Any) -> None:
        if any(self._computed(node, index) is None for index in range(len(node.inputs))):
            raise self._unsupported(node, "it joins a constant")
        axis = int(node.attr["axis"]) % len(node.output_shape)
        if axis == 0:
            raise self._unsupported(node, "it joins along the batch dimension")
        self._add(node, Op.CONCAT, {"axis": axis - 1})


def _simplified(graph: Graph, tensors: dict[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """AFFINE nodes folded into the LINEAR or CONV before them; what is not used dropped."""
    nodes: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    users = Counter(name for node in graph.nodes for name in node.inputs)
    users[graph.output] += 1
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        if node.op is Op.AFFINE and users[node.inputs[0]] == 1:
            source = nodes[node.inputs[0]]
            if _fold(source, node, tensors):
                renamed[node.name] = source.name
                users[source.name] = users[node.name]
                continue
        nodes[node.name] = node
    output = renamed.get(graph.output, graph.output)
    return _reaching(Graph(tuple(nodes.values()), output), tensors)


def _fold(source: Node, affine: Node, tensors: dict[str, Tensor]) -> bool:
    """Into the weight and bias of `source`, if it has one scale and shift per output row."""
    if source.op not in (Op.LINEAR, Op.CONV):
        return False
    rows = source.shape[0]
    scale, shift = (tensors[affine.parameters[role]] for role in ("scale", "shift"))
    scales, shifts = scale.reshape(rows, -1), shift.reshape(rows, -1)
    if (scales != scales[:, :1]).any() or (shifts != shifts[:, :1]).any():
        return False
    weight, bias = source.parameters["weight"], source.parameters["bias"]
    if (scales != 1).any():
        spread = (-1, *(1 for _ in tensors[weight].shape[1:]))
        tensors[weight] = tensors[weight] * scales[:, 0].reshape(spread)
    tensors[bias] = tensors[bias] * scales[:, 0] + shifts[:, 0]
    return True


def _reaching(graph: Graph, tensors: dict[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """Only what reaches the output, the input first."""
    needed = {graph.output, graph.input.name}
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    nodes = tuple(node for node in graph.nodes if node.name in needed)
    used = {name for node in nodes for name in node.parameters.values()}
    return Graph(nodes, graph.output), {n: t for n, t in tensors.items() if n in used}
