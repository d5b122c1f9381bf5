"""The bound graph in the making: the few operators that have bounds, and what others are made of.

A value is [B, *sample]: its shape in the file, without a leading 1, which is a batch dimension as
a rule. What else stands in front is part of the sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto

from runner.contract.errors import InstanceError
from runner.engine.network.convert import Converted, attributes_of
from runner.engine.network.draft import Array, Shape
from runner.engine.network.graph import Attribute, Graph, Node, Op
from runner.engine.network.onnx_file import unsupported
from runner.engine.network.rounded import Rounded

ONE, ZERO = Rounded.exact(np.ones(1)), Rounded.exact(np.zeros(1))
# Operators whose other outputs are never asked for, or have no bounds and no users.
_ONE_OUTPUT = frozenset({"Dropout", "Identity"})


class Builder:
    """Takes nodes in topological order."""

    def __init__(self, network: Converted) -> None:
        self.tensors: dict[str, Array] = {}
        self.network = network
        sample = network.sample_shape(network.draft.input)
        self._nodes = {"input": Node("input", Op.INPUT, (), sample)}
        self._names = {network.draft.input: "input"}  # the file's name of a value -> ours

    def graph(self) -> Graph:
        output = self._nodes[self._names[self.network.output]]
        if output.shape != (output.size,):
            output = self._nodes["output"] = Node(
                "output", Op.RESHAPE, (output.name,), (output.size,)
            )
        network = self.network
        return Graph(tuple(self._nodes.values()), output.name, network.dtype, network.lowest)

    def give(self, node: NodeProto, made: Node | Sequence[Node]) -> None:
        """What the outputs of `node` are, each in the shape that it has in the file."""
        values = [made] if isinstance(made, Node) else list(made)
        if len(values) == 1 and any(node.output[1:]) and node.op_type not in _ONE_OUTPUT:
            raise self.refused(node, "only its first output is")
        for name, value in zip(node.output, values, strict=False):
            if name:
                self._names[name] = self.reshaped(value, self.network.sample_shape(name)).name

    def refused(self, node: NodeProto, reason: str) -> InstanceError:
        return unsupported(self.network.draft.path, node, reason)

    # The inputs and outputs of a node of the file.

    def attribute(self, node: NodeProto, name: str, default: Any) -> Any:
        return attributes_of(node).get(name, default)

    def shape(self, node: NodeProto, output: int = 0) -> Shape:
        return self.network.sample_shape(node.output[output])

    def has(self, node: NodeProto, index: int) -> bool:
        return len(node.input) > index and bool(node.input[index])

    def computed(self, node: NodeProto, index: int = 0) -> Node | None:
        """None for a constant."""
        name = self._names.get(node.input[index])
        return None if name is None else self._nodes[name]

    def source(self, node: NodeProto) -> Node:
        """The first computed input."""
        return self._nodes[next(self._names[name] for name in node.input if name in self._names)]

    def constant(self, node: NodeProto, index: int) -> Array:
        """Refused where it is rounded."""
        name = node.input[index]
        if name in self._names:
            raise self.refused(node, f"its input {name!r} is computed, not constant")
        if name in self.network.draft.rounded:
            raise self.refused(
                node,
                f"the file computes its constant {name!r}, which floating point would round; "
                "export the network with its constants folded",
            )
        return self.network.draft.constants[name]

    def rounded(self, node: NodeProto, index: int) -> Rounded:
        """A constant of floating point that the file may compute."""
        known = self.network.draft.rounded.get(node.input[index])
        return Rounded.exact(self.constant(node, index)) if known is None else known

    def file_shape(self, name: str) -> Shape:
        """With what stands in front of the sample."""
        constant = self.network.draft.constants.get(name)
        return self.network.shapes[name] if constant is None else constant.shape

    # What has bounds.

    def append(
        self,
        op: Op,
        inputs: Sequence[Node],
        shape: Shape,
        attributes: Mapping[str, Attribute] | None = None,
        **parameters: Array,
    ) -> Node:
        name = f"{op}_{len(self._nodes)}"
        roles = {role: f"{name}.{role}" for role in parameters}
        self.tensors |= {roles[role]: value for role, value in parameters.items()}
        before = tuple(node.name for node in inputs)
        made = self._nodes[name] = Node(name, op, before, shape, attributes or {}, roles)
        return made

    def reshaped(self, x: Node, shape: Shape) -> Node:
        """Values keep their order."""
        return x if x.shape == shape else self.append(Op.RESHAPE, [x], shape)

    def selected(self, x: Node, index: Array, shape: Shape | None = None) -> Node:
        """The values at flat positions of x, -1: zero; in the index's shape, or in `shape`."""
        flat = np.asarray(index, dtype=np.int64)
        shape = flat.shape if shape is None else shape
        if flat.size == x.size and (flat.reshape(-1) == np.arange(x.size)).all():
            return self.reshaped(x, shape)
        used = flat[flat >= 0]
        once = len(np.unique(used)) == used.size
        attributes: dict[str, Attribute] = {"once": once, "zeros": len(used) < flat.size}
        return self.append(Op.SELECT, [x], shape, attributes, index=flat.reshape(shape))

    def gathered(self, x: Node, index: Array) -> Node:
        """`selected`, and a node even where nothing moves: all of it is on every rank."""
        once = len(np.unique(index)) == index.size
        attributes: dict[str, Attribute] = {"once": once, "zeros": False}
        return self.append(Op.SELECT, [x], index.shape, attributes, index=index.astype(np.int64))

    def expanded(self, x: Node, before: Shape, after: Shape, shape: Shape) -> Node:
        """x broadcast as from one shape of the file to another; `shape`: of the sample after."""
        if prod(before) == prod(after):
            return self.reshaped(x, shape)
        index = np.arange(x.size).reshape(before)
        return self.selected(x, np.broadcast_to(index, after), shape)

    def linear(self, x: Node, weight: Array, bias: Array | None = None) -> Node:
        """weight [out, in] and x of `in` values, in whatever shape."""
        flat = self.reshaped(x, (x.size,))
        bias = np.zeros(len(weight), weight.dtype) if bias is None else bias
        return self.append(Op.LINEAR, [flat], (len(weight),), weight=weight, bias=bias)

    def conv(
        self,
        x: Node,
        weight: Array,
        bias: Array | None,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> Node:
        """x [in, rows, columns], weight [out, in / groups, *kernel]."""
        reach = [dilation[axis] * (weight.shape[2 + axis] - 1) + 1 for axis in (0, 1)]
        image = (
            (x.shape[1 + axis] + 2 * padding[axis] - reach[axis]) // stride[axis] + 1
            for axis in (0, 1)
        )
        attributes: dict[str, Attribute] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
        }
        bias = np.zeros(len(weight), weight.dtype) if bias is None else bias
        shape = (len(weight), *image)
        return self.append(Op.CONV, [x], shape, attributes, weight=weight, bias=bias)

    def affine(self, x: Node, scale: Rounded, shift: Rounded, node: NodeProto) -> Node:
        """scale * x + shift, which broadcast to x's shape; of `node`, which is refused else."""
        if not np.isfinite(scale.value).all():
            raise self.refused(node, "it divides by zero")
        if scale.is_one and shift.is_zero:
            return x
        parameters = {"scale": scale.value, "shift": shift.value}
        if not scale.is_exact:
            parameters["scale_error"] = scale.error
        if not shift.is_exact:
            parameters["shift_error"] = shift.error
        return self.append(Op.AFFINE, [x], x.shape, None, **parameters)

    def plus(self, x: Node, y: Node) -> Node:
        return self.append(Op.ADD, [x, y], x.shape)

    def minus(self, x: Node, y: Node) -> Node:
        return self.append(Op.SUB, [x, y], x.shape)

    def relu(self, x: Node) -> Node:
        return self.function(Op.RELU, x)

    def function(self, op: Op, x: Node) -> Node:
        return self.append(op, [x], x.shape)

    def applied(self, name: str, x: Node, **attributes: float | str) -> Node:
        """A function of runner.engine.functions, of each value."""
        return self.append(Op.FUNCTION, [x], x.shape, {"function": name, **attributes})

    def times(self, x: Node, y: Node) -> Node:
        """Of two computed values of one shape."""
        if x is y:
            return self.function(Op.SQUARE, x)
        pair = [self.reshaped(value, (1, *value.shape)) for value in (x, y)]
        both = self.append(Op.CONCAT, pair, (2, *x.shape), {"axis": 0})
        return self.append(Op.PRODUCT, [both], x.shape)

    def matmul(self, x: Node, y: Node) -> Node:
        """Of x [batch, rows, length] and y [batch, length, columns]."""
        (batch, rows, length), columns = x.shape, y.shape[2]
        sizes = rows * length, length * columns
        pair = [
            self.reshaped(value, (batch, size)) for value, size in zip((x, y), sizes, strict=True)
        ]
        both = self.append(Op.CONCAT, pair, (batch, sum(sizes)), {"axis": 1})
        attributes = {"batch": batch, "rows": rows, "length": length, "columns": columns}
        return self.append(Op.MATMUL, [both], (batch, rows, columns), attributes)

    def summed(self, x: Node, count: int) -> Node:
        """The sum of each `count` values that follow each other: [1, sums, 1]."""
        rows = self.reshaped(x, (1, x.size // count, count))
        return self.conv(rows, np.ones((1, 1, 1, count), str(self.network.dtype)), None)
