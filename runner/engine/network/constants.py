"""Constants that the file computes from others: exactly, or with what rounding may do to them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network.draft import Array, Draft, Shape, dimensions, replace_all
from runner.engine.network.inexact import rounded_values
from runner.engine.network.library_errors import foreign
from runner.engine.network.onnx_file import DOMAINS, unsupported
from runner.engine.network.rounded import Rounded

# Each value that they give is one that they are given, its negative, or a number written there.
_MOVES = frozenset(
    {
        *("Abs", "Cast", "Concat", "Constant", "ConstantOfShape", "Equal", "Expand", "Flatten"),
        *("Gather", "GatherElements", "GatherND", "Greater", "Identity", "Less", "Max", "Min"),
        *("Neg", "Not", "Pad", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
        *("Transpose", "Unsqueeze", "Where"),
    }
)
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
}
_OF_INTEGERS = frozenset({*_ARITHMETIC, "Mod", "Range", "ReduceProd", "ReduceSum"})
_OF_SHAPES = frozenset({"Shape", "Size"})
_fractions = np.frompyfunc(lambda value: Fraction(float(value)), 1, 1)


def fold_constants(draft: Draft) -> dict[str, Shape]:
    """Leaves only nodes that depend on the input and reach the output; gives the shapes of values.

    Raises InstanceError: UNSUPPORTED_OPERATOR for a constant that cannot be computed exactly, and
    as `Draft.shapes` does.
    """
    _drop_unused(draft)
    while True:
        shapes = draft.shapes()
        folding = _Folding(draft, shapes)
        open_nodes = [node for node in draft.graph.node if not folding.folded(node)]
        if len(open_nodes) == len(draft.graph.node):
            return shapes
        replace_all(draft.graph.node, open_nodes)
        _drop_unused(draft)


def _drop_unused(draft: Draft) -> None:
    used = {value.name for value in draft.graph.output}
    needed = []
    for node in reversed(draft.graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            needed.append(node)
    replace_all(draft.graph.node, needed[::-1])
    draft.constants = {name: value for name, value in draft.constants.items() if name in used}


class _Folding:
    """One pass over the nodes; a shape that depends on a constant is known in the next."""

    def __init__(self, draft: Draft, shapes: dict[str, Shape]) -> None:
        self._draft = draft
        self._shapes = shapes

    def folded(self, node: NodeProto) -> bool:
        """Whether the node is constant; its values are then among the draft's constants."""
        arguments = self._arguments(node)
        if arguments is None:
            return False
        if node.domain not in DOMAINS:
            raise self._inexact(node)
        failed = f"{self._draft.path}: {node.op_type} of constants ({node.output[0]!r}) fails"
        with foreign(Cause.MALFORMED_NETWORK, failed):
            self._check_sizes(node, arguments)
            values = self._exact_values(node, arguments)
            if values is None:
                self._keep_rounded(node, arguments)
            else:
                self._draft.constants.update(zip(node.output, values, strict=False))
        return True

    def _arguments(self, node: NodeProto) -> dict[str, Array] | None:
        """None where one is not constant. Of a value whose shape is asked for, any will do."""
        names = [name for name in node.input if name]
        if node.op_type in _OF_SHAPES:
            shape = self._shapes.get(names[0])
            if shape is not None and all(shape):
                return {names[0]: np.broadcast_to(np.float32(0), shape)}
        constants = self._draft.constants
        return {n: constants[n] for n in names} if all(n in constants for n in names) else None

    def _exact_values(self, node: NodeProto, arguments: dict[str, Array]) -> Sequence[Array] | None:
        """None where they are rounded, or what they are made of is."""
        known = _MOVES | _OF_SHAPES | _OF_INTEGERS
        rounded = node.op_type not in _OF_SHAPES and any(
            n in self._draft.rounded for n in arguments
        )
        if rounded or node.op_type not in known:
            return None
        values = self._run(node, arguments)
        given = [arguments[name] for name in node.input if name]
        return values if self._is_exact(node, given, values) else None

    def _keep_rounded(self, node: NodeProto, arguments: dict[str, Array]) -> None:
        def moved(values: Sequence[Array | None]) -> Sequence[Array]:
            given = {n: v for n, v in zip(node.input, values, strict=True) if v is not None}
            return self._run(node, given)

        exact = {n: Rounded.exact(v) if v.dtype.kind == "f" else v for n, v in arguments.items()}
        known = exact | {n: v for n, v in self._draft.rounded.items() if n in arguments}
        values = rounded_values(node, [known.get(name) for name in node.input], moved)
        if values is None:
            raise self._inexact(node)
        dtype = next(v.dtype for v in arguments.values() if v.dtype.kind == "f")
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                dtype = helper.tensor_dtype_to_np_dtype(attribute.i)
        for name, value in zip(node.output, values, strict=False):
            stored = value.value.astype(dtype)
            self._draft.constants[name] = stored
            if not value.is_exact or not np.array_equal(stored, value.value):
                self._draft.rounded[name] = value

    def _run(self, node: NodeProto, arguments: dict[str, Array]) -> list[Array]:
        model = self._alone(node, arguments, inline=False)
        return [np.asarray(v) for v in ReferenceEvaluator(model).run(None, arguments)]

    def _check_sizes(self, node: NodeProto, arguments: dict[str, Array]) -> None:
        """Before memory is taken: a few bytes can ask for any size."""
        alone = self._alone(node, arguments, inline=True)
        for value in shape_inference.infer_shapes(alone, strict_mode=True).graph.value_info:
            if not value.type.tensor_type.HasField("shape"):
                raise self._inexact(node)
            self._draft.check_size(value.name, dimensions(value), node)

    def _alone(self, node: NodeProto, arguments: dict[str, Array], *, inline: bool) -> Any:
        """A model of this node; `inline`: with the small integers, which sizes depend on, in it."""
        inner = {n for n, v in arguments.items() if inline and v.dtype.kind in "iu" and v.ndim < 2}
        graph = helper.make_graph(
            [node],
            "constant",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                for n, v in arguments.items()
                if n not in inner
            ],
            [] if inline else [helper.make_empty_tensor_value_info(n) for n in node.output if n],
            [numpy_helper.from_array(np.asarray(arguments[name]), name) for name in inner],
        )
        opsets = self._draft.model.opset_import
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def _is_exact(
        self, node: NodeProto, arguments: Sequence[Array], values: Sequence[Array]
    ) -> bool:
        if node.op_type in _MOVES | _OF_SHAPES:
            return True
        if all(value.dtype.kind in "iub" for value in (*arguments, *values)):
            return True
        if node.op_type not in _ARITHMETIC:
            return False
        if not all(np.isfinite(value).all() for value in (*arguments, *values)):
            return False
        exact = np.frompyfunc(_ARITHMETIC[node.op_type], 2, 1)(*map(_fractions, arguments))
        return bool(np.all(exact == _fractions(values[0])))

    def _inexact(self, node: NodeProto) -> InstanceError:
        reason = (
            "it computes a constant, and how floating point would round it is not known; "
            "export the network with its constants folded"
        )
        return unsupported(self._draft.path, node, reason)
