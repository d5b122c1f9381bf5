"""From ONNX's nodes to the bound graph: plain data, and its tensors beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from onnx import NodeProto

from runner.contract.errors import InstanceError
from runner.engine.network.convert import RESHAPES, Converted, attributes_of
from runner.engine.network.draft import Array, Shape
from runner.engine.network.graph import Attribute, Graph, Node, Op
from runner.engine.network.onnx_file import unsupported
from runner.engine.network.rounded import Rounded

_PLAIN = {"Relu": Op.RELU, "Sigmoid": Op.SIGMOID, "Tanh": Op.TANH}
_NOTHING = frozenset({"Dropout", "Identity"})


def translated(network: Converted) -> tuple[Graph, dict[str, Array]]:
    """The bound graph of a network, and its parameters by name.

    Every operator becomes a node of its own, with the weights that the file has, or follow from
    them exactly; the output is flat. Raises InstanceError UNSUPPORTED_OPERATOR.
    """
    translation = _Translation(network)
    for node in network.draft.graph.node:
        translation.add(node)
    return translation.graph(), translation.tensors


class _Translation:
    """Takes nodes in topological order."""

    def __init__(self, network: Converted) -> None:
        self.tensors: dict[str, Array] = {}
        self._network = network
        self._path = network.draft.path
        self._nodes = {
            "input": Node("input", Op.INPUT, (), network.sample_shape(network.draft.input))
        }
        self._names = {network.draft.input: "input"}  # the file's name of a computed value -> ours

    def graph(self) -> Graph:
        output = self._names[self._network.output]
        size = self._nodes[output].size
        if self._nodes[output].shape != (size,):
            self._nodes["output"] = Node("output", Op.RESHAPE, (output,), (size,))
            output = "output"
        return Graph(tuple(self._nodes.values()), output, self._network.dtype)

    def add(self, node: NodeProto) -> None:
        rules: Mapping[str, Callable[[NodeProto], None]] = {
            "Gemm": self._gemm,
            "MatMul": self._matmul,
            "Conv": self._conv,
            "Add": self._add_or_subtract,
            "Sub": self._add_or_subtract,
            "Mul": self._scaled,
            "Div": self._scaled,
            "Neg": self._negated,
            "BatchNormalization": self._normalized,
            "Concat": self._concat,
            "MaxPool": self._pool,
            "AveragePool": self._pool,
            "GlobalAveragePool": self._mean,
            **dict.fromkeys(_PLAIN, self._plain),
            **dict.fromkeys(RESHAPES, self._reshape),
            **dict.fromkeys(_NOTHING, self._skip),
        }
        if node.op_type not in _NOTHING and any(node.output[1:]):
            raise self._refused(node, "only its first output is")
        rules[node.op_type](node)

    def _refused(self, node: NodeProto, reason: str) -> InstanceError:
        return unsupported(self._path, node, reason)

    def _shape(self, node: NodeProto) -> Shape:
        return self._network.sample_shape(node.output[0])

    def _source(self, node: NodeProto) -> Node:
        """The node behind the first computed input."""
        return self._nodes[next(self._names[name] for name in node.input if name in self._names)]

    def _computed(self, node: NodeProto, index: int) -> Node | None:
        """None for a constant."""
        name = self._names.get(node.input[index])
        return None if name is None else self._nodes[name]

    def _constant(self, node: NodeProto, index: int) -> Array:
        name = node.input[index]
        if name in self._names:
            raise self._refused(node, f"its input {name!r} is computed, not constant")
        return self._network.draft.constants[name]

    def _operand(self, node: NodeProto, index: int) -> Rounded:
        """A constant that broadcasts to the node's shape, without the batch dimension."""
        value, shape = self._constant(node, index), self._shape(node)
        if value.ndim == len(shape) + 1 and value.shape[0] == 1:
            value = value[0]
        if value.ndim > len(shape) or self._source(node).shape != shape:
            raise self._refused(node, "a constant that makes its input larger")
        return Rounded.exact(value)

    def _add(
        self,
        node: NodeProto,
        op: Op,
        attributes: Mapping[str, Attribute] | None = None,
        **parameters: Array,
    ) -> None:
        """A node on the computed inputs of `node`, in their order, or on what was made of them."""
        inputs = tuple(self._names[name] for name in node.input if name in self._names)
        self._append(node, op, inputs, attributes or {}, parameters)

    def _append(
        self,
        node: NodeProto,
        op: Op,
        inputs: tuple[str, ...],
        attributes: Mapping[str, Attribute],
        parameters: Mapping[str, Array],
    ) -> None:
        name = f"{op}_{len(self._nodes)}"
        roles = {role: f"{name}.{role}" for role in parameters}
        self.tensors |= {roles[role]: value for role, value in parameters.items()}
        self._nodes[name] = Node(name, op, inputs, self._shape(node), attributes, roles)
        self._names[node.output[0]] = name

    def _plain(self, node: NodeProto) -> None:
        self._add(node, _PLAIN[node.op_type])

    def _reshape(self, node: NodeProto) -> None:
        """Values keep their order, whatever they are reshaped to."""
        if self._shape(node) == self._source(node).shape:
            self._skip(node)
        else:
            self._add(node, Op.RESHAPE)

    def _skip(self, node: NodeProto) -> None:
        self._names[node.output[0]] = self._source(node).name

    def _gemm(self, node: NodeProto) -> None:
        attributes = attributes_of(node)
        if self._computed(node, 0) is None or attributes.get("transA", 0):
            raise self._refused(node, "only a batch times a constant matrix is")
        weight = self._constant(node, 1)
        weight = weight if attributes.get("transB", 0) else weight.T
        alpha, beta = (Rounded.exact(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        bias = np.zeros(len(weight), weight.dtype)
        if len(node.input) > 2 and node.input[2]:
            bias = np.broadcast_to(self._constant(node, 2), (1, len(weight)))[0]
        if alpha.value == 1 and beta.value == 1:
            self._linear(node, weight, bias)
        else:
            self._linear(node, weight, np.zeros_like(bias))
            self._affine(node, alpha, beta * Rounded.exact(bias))

    def _matmul(self, node: NodeProto) -> None:
        if self._computed(node, 0) is not None and self._computed(node, 1) is not None:
            raise self._refused(node, "it multiplies two computed values")
        if self._computed(node, 0) is not None:
            weight = self._constant(node, 1).T
        elif len(self._network.shapes[node.input[1]]) == 1:
            weight = self._constant(node, 0)
        else:
            raise self._refused(node, "a constant on the left of a batch")
        self._linear(node, weight, np.zeros(len(weight), weight.dtype))

    def _linear(self, node: NodeProto, weight: Array, bias: Array) -> None:
        if weight.ndim != 2 or len(self._source(node).shape) != 1:
            raise self._refused(node, "its input is not flat, or its matrix has more dimensions")
        self._add(node, Op.LINEAR, weight=weight, bias=bias)

    def _conv(self, node: NodeProto) -> None:
        window = _Window(node, self._source(node).shape, self._path)
        weight = self._constant(node, 1)
        has_bias = len(node.input) > 2 and node.input[2]
        bias = self._constant(node, 2) if has_bias else np.zeros(len(weight), weight.dtype)
        attributes: dict[str, Attribute] = {
            "stride": window.pair("strides"),
            "padding": window.padding(),
            "dilation": window.pair("dilations"),
            "groups": int(attributes_of(node).get("group", 1)),
        }
        self._add(node, Op.CONV, attributes, weight=weight, bias=bias)

    def _pool(self, node: NodeProto) -> None:
        window = _Window(node, self._source(node).shape, self._path)
        window.check_pool()
        op = Op.MAXPOOL if node.op_type == "MaxPool" else Op.AVGPOOL
        attributes = {
            "kernel": window.pair("kernel_shape"),
            "stride": window.pair("strides"),
            "padding": window.padding(),
        }
        self._add(node, op, attributes)

    def _mean(self, node: NodeProto) -> None:
        window = _Window(node, self._source(node).shape, self._path)
        size = self._source(node).shape[1:]
        attributes = {"kernel": size, "stride": size, "padding": window.padding()}
        self._add(node, Op.AVGPOOL, attributes)

    def _add_or_subtract(self, node: NodeProto) -> None:
        subtract = node.op_type == "Sub"
        first, second = self._computed(node, 0), self._computed(node, 1)
        if first is not None and second is not None:
            if first.shape != second.shape:
                message = f"its inputs differ in shape: {first.shape} and {second.shape}"
                raise self._refused(node, message)
            self._add(node, Op.SUB if subtract else Op.ADD)
            return
        one = Rounded.exact(np.ones(1))
        shift = self._operand(node, 0 if first is None else 1)
        if first is not None:
            self._affine(node, one, -shift if subtract else shift)
        else:
            self._affine(node, -one if subtract else one, shift)

    def _scaled(self, node: NodeProto) -> None:
        index = 1 if self._computed(node, 0) is not None else 0
        if node.op_type == "Div" and index == 0:
            raise self._refused(node, "a constant is divided by a computed value")
        factor = self._operand(node, index)
        scale = factor.reciprocal() if node.op_type == "Div" else factor
        self._affine(node, scale, Rounded.exact(np.zeros(1)))

    def _negated(self, node: NodeProto) -> None:
        self._affine(node, Rounded.exact(-np.ones(1)), Rounded.exact(np.zeros(1)))

    def _normalized(self, node: NodeProto) -> None:
        gain, offset, mean, variance = (
            Rounded.exact(self._constant(node, index)) for index in range(1, 5)
        )
        shape = self._shape(node)
        if gain.value.shape != shape[:1]:
            raise self._refused(node, "its statistics are not one of each channel")
        # The file's epsilon is a float32, 1e-5 by default.
        epsilon = np.float32(attributes_of(node).get("epsilon", 1e-5))
        scale = gain * (variance + Rounded.exact(epsilon)).sqrt().reciprocal()
        if not np.isfinite(scale.value).all():
            raise self._refused(node, "a variance that is not positive, even with its epsilon")
        shift = offset - mean * scale
        spread = (-1, *(1 for _ in shape[1:]))
        self._affine(node, scale.reshape(*spread), shift.reshape(*spread))

    def _affine(self, node: NodeProto, scale: Rounded, shift: Rounded) -> None:
        if not np.isfinite(scale.value).all():
            raise self._refused(node, "it divides by zero")
        parameters = {"scale": scale.value, "shift": shift.value}
        if not scale.is_exact:
            parameters["scale_error"] = scale.error
        if not shift.is_exact:
            parameters["shift_error"] = shift.error
        made = self._names.get(node.output[0])  # what the same operator has begun with
        inputs = (made or self._source(node).name,)
        self._append(node, Op.AFFINE, inputs, {}, parameters)

    def _concat(self, node: NodeProto) -> None:
        if any(name not in self._names for name in node.input):
            raise self._refused(node, "it joins a constant")
        rank = len(self._network.shapes[node.output[0]])
        axis = int(attributes_of(node)["axis"]) % rank
        if rank > 1 and axis == 0:
            raise self._refused(node, "it joins along the batch dimension")
        self._add(node, Op.CONCAT, {"axis": axis - 1 if rank > 1 else axis})


class _Window:
    """Attributes of a Conv or pool, where two-dimensional."""

    def __init__(self, node: NodeProto, input_shape: Shape, path: Path) -> None:
        self._node = node
        self._path = path
        self._attributes = attributes_of(node)
        if len(input_shape) != 3:
            raise self._refused("it is not two-dimensional")
        if self._attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise self._refused("auto_pad")

    def _refused(self, reason: str) -> InstanceError:
        return unsupported(self._path, self._node, reason)

    def pair(self, attribute: str) -> tuple[int, ...]:
        return tuple(int(value) for value in self._attributes.get(attribute, (1, 1)))

    def padding(self) -> tuple[int, ...]:
        pads = tuple(int(value) for value in self._attributes.get("pads", (0, 0, 0, 0)))
        if pads[:2] != pads[2:]:
            raise self._refused("padding that is not symmetric")
        return pads[:2]

    def check_pool(self) -> None:
        average = self._node.op_type == "AveragePool"
        kernel, padding = self.pair("kernel_shape"), self.padding()
        refusals = {
            "ceil_mode": self._attributes.get("ceil_mode", 0) != 0,
            "a dilated pool": self.pair("dilations") != (1, 1),
            "padding that does not count": average
            and any(padding)
            and not self._attributes.get("count_include_pad", 0),
            "padding of more than half its window": any(
                2 * pad > length for pad, length in zip(padding, kernel, strict=True)
            ),
        }
        for reason, refused in refusals.items():
            if refused:
                raise self._refused(reason)
