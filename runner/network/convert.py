"""Rewrites an ONNX network so that it takes a batch and holds no more operators than it must."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxsim
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    checker,
    helper,
    numpy_helper,
    shape_inference,
    version_converter,
)
from onnx.reference import ReferenceEvaluator

from runner.errors import InstanceError
from runner.network.foreign import foreign
from runner.vocabulary import Cause

Shape = tuple[int, ...]

_RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_WINDOWS = frozenset({"AveragePool", "Conv", "MaxPool"})
_POINTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Relu", "Sigmoid", "Tanh"})
_OTHERS = frozenset({"BatchNormalization", "Concat", "Gemm", "GlobalAveragePool", "MatMul"})
SUPPORTED = _RESHAPES | _WINDOWS | _POINTWISE | _OTHERS

# onnx2torch knows every supported operator in each of these versions.
_OPSETS = range(9, 16)
# ONNX's tools serialise all weights at each step; a weight of so many values is kept out of them.
_LARGE = 1 << 20
_BATCH = "batch"
# onnxsim 0.8 dies in it when a Transpose leaves its permutation to the default.
_BROKEN = ("fuse_transpose_into_gemm",)


@dataclass(frozen=True)
class Batchable:
    """The rewritten network; its first dimension is the batch, the shapes leave it out."""

    model: ModelProto
    input_shape: Shape
    output_shape: Shape


def batchable(content: bytes, source: str) -> Batchable:
    """From the bytes of an ONNX file to a network that takes any batch. `source` names the file.

    Identity and Dropout go, constants are folded, a reshape keeps the batch dimension, and a
    network of vectors (no batch dimension) gets one. Raises InstanceError: MALFORMED_NETWORK,
    UNSUPPORTED_INSTANCE (several inputs or outputs, a batch of more than one, weights in other
    files) or UNSUPPORTED_OPERATOR.
    """
    model = _parse(content, source)
    _set_one_sample(model.graph, source)
    large = _take_large(model.graph)
    _check(model, source)
    with foreign(Cause.MALFORMED_NETWORK, f"{source}: onnxsim cannot simplify it"):
        model = onnxsim.simplify(model, skipped_optimizers=list(_BROKEN))[0]
        model = _supported_opset(model)
    with foreign(Cause.MALFORMED_NETWORK, f"{source}: the shapes do not fit; export it again"):
        model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return _Rewriting(model, large, source).result()


def _parse(content: bytes, source: str) -> ModelProto:
    """The model; its initializers are constants, whatever the inputs of old versions say."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise _malformed(source, error) from error
    constants = {tensor.name for tensor in model.graph.initializer}
    _replace(model.graph.input, [v for v in model.graph.input if v.name not in constants])
    if model.ir_version == 3:  # the last that wanted initializers among the inputs
        model.ir_version = 4
    return model


def _malformed(source: str, error: Exception) -> InstanceError:
    reason = next(iter(str(error).strip().splitlines()), "no reason given")
    return InstanceError(
        Cause.MALFORMED_NETWORK,
        f"{source}: not a valid ONNX network ({reason}); download or export it again",
    )


def _set_one_sample(graph: GraphProto, source: str) -> None:
    """Fixes the batch dimension of the input at 1 and leaves all other shapes to inference."""
    if not graph.node:
        raise _malformed(source, ValueError("no operators"))
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{source}: {len(graph.input)} inputs and {len(graph.output)} outputs; "
            "only networks with one input and one output are supported",
        )
    dimensions = graph.input[0].type.tensor_type.shape.dim
    if len(dimensions) > 1 and not dimensions[0].HasField("dim_value"):
        dimensions[0].dim_value = 1
    shape = _dimensions(graph.input[0])
    if not shape or min(shape) < 1 or (len(shape) > 1 and shape[0] != 1):
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{source}: input {graph.input[0].name!r} has shape {list(shape)} (0: unknown); "
            "export it with a batch dimension of 1 in front and all others fixed",
        )
    del graph.value_info[:]
    for dimension in graph.output[0].type.tensor_type.shape.dim:
        dimension.Clear()


def _dimensions(value: ValueInfoProto) -> Shape:
    """0 stands for an unknown length."""
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _take_large(graph: GraphProto) -> dict[str, TensorProto]:
    """Moves the large initializers out; inputs of the same names stand in for them."""
    large: dict[str, TensorProto] = {}
    small: list[TensorProto] = []
    for tensor in graph.initializer:
        if math.prod(tensor.dims) < _LARGE:
            small.append(tensor)
            continue
        large[tensor.name] = tensor
        graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    if large:
        _replace(graph.initializer, small)
    return large


def _check(model: ModelProto, source: str) -> None:
    """Unknown operators first: for them the checker would call the file malformed."""
    for node in model.graph.node:
        if not onnx.defs.has(node.op_type, node.domain):
            raise _unsupported(source, node, "it is not a standard ONNX operator")
    if any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{source}: keeps weights in other files; save it again as a single file",
        )
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise _malformed(source, error) from error


def _supported_opset(model: ModelProto) -> ModelProto:
    version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if version in _OPSETS:
        return model
    target = _OPSETS[0] if version < _OPSETS[0] else _OPSETS[-1]
    return version_converter.convert_version(model, target)


def _unsupported(source: str, node: NodeProto, reason: str) -> InstanceError:
    return InstanceError(
        Cause.UNSUPPORTED_OPERATOR,
        f"{source}: operator {node.op_type} (node {node.name or node.output[0]!r}) "
        f"is not supported: {reason}",
    )


class _Rewriting:
    """Rewrites the nodes one by one; `shapes` are those of one sample, as the file has them."""

    def __init__(self, model: ModelProto, large: dict[str, TensorProto], source: str) -> None:
        self.model = model
        self.source = source
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer} | large
        graph = model.graph
        values = (*graph.input, *graph.value_info, *graph.output)
        self.shapes = {value.name: _dimensions(value) for value in values}

    def result(self) -> Batchable:
        graph = self.model.graph
        nodes = [new for node in graph.node for new in self._rewritten(node)]
        inputs = [value for value in graph.input if value.name not in self.constants]
        if graph.output[0].name in self.constants:
            raise _malformed(self.source, ValueError("the output does not depend on the input"))
        source, target = inputs[0], graph.output[0]
        shapes = self._sample_shape(source.name), self._sample_shape(target.name)
        used = {name for node in nodes for name in node.input}
        # In place, since a new model would copy the weights.
        _replace(graph.input, [self._batched(source)])
        _replace(graph.output, [self._batched(target)])
        _replace(graph.node, nodes)
        _replace(graph.initializer, [t for name, t in self.constants.items() if name in used])
        computed = {name for node in nodes for name in node.output}
        values = [value for value in graph.value_info if value.name in computed]
        _replace(graph.value_info, [self._batched(value) for value in values])
        return Batchable(self.model, *shapes)

    def _batched(self, value: ValueInfoProto) -> ValueInfoProto:
        shape: list[str | int | None] = [_BATCH, *self._sample_shape(value.name)]
        return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape)

    def _sample_shape(self, name: str) -> Shape:
        """Without the batch dimension, which a vector does not have yet."""
        shape = self.shapes[name]
        return shape[1:] if len(shape) > 1 else shape

    def _rewritten(self, node: NodeProto) -> list[NodeProto]:
        computed = [name for name in node.input if name and name not in self.constants]
        if not computed:
            self._fold(node)
            return []
        if node.op_type not in SUPPORTED:
            names = ", ".join(sorted(SUPPORTED))
            raise _unsupported(self.source, node, f"supported operators: {names}")
        self._check_outputs(node)
        match node.op_type:
            case "GlobalAveragePool":
                return [self._average_pool(node)]
            case "MatMul":
                return [self._matmul(node, computed)]
            case "Concat":
                return [self._concat(node, computed)]
            case kind if kind in _RESHAPES:
                return [self._reshape(node)]
        if node.op_type == "Gemm":
            self._check_gemm(node, computed)
        if node.op_type in _WINDOWS:
            self._check_window(node)
        return [node]

    def _fold(self, node: NodeProto) -> None:
        """A constant of large weights, which onnxsim has not seen."""
        arguments = {name: numpy_helper.to_array(self.constants[name]) for name in node.input}
        with foreign(Cause.MALFORMED_NETWORK, f"{self.source}: {node.op_type} of constants fails"):
            values = ReferenceEvaluator(node).run(None, arguments)
        for name, value in zip(node.output, values, strict=True):
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)

    def _check_outputs(self, node: NodeProto) -> None:
        if any(node.output[1:]):
            raise _unsupported(self.source, node, "only its first output is")
        shape = self.shapes.get(node.output[0], ())
        if not shape or min(shape) < 1:
            raise _unsupported(self.source, node, "its output's shape cannot be inferred")
        if len(shape) > 1 and shape[0] != 1:
            raise _unsupported(
                self.source, node, f"its output {list(shape)} has no batch dimension in front"
            )

    def _reshape(self, node: NodeProto) -> NodeProto:
        source, target = node.input[0], node.output[0]
        shape = self._sample_shape(target)
        if len(shape) == 1:
            return helper.make_node("Flatten", [source], [target], node.name, axis=1)
        lengths = self._constant(f"{target}.shape", np.array([-1, *shape], dtype=np.int64))
        return helper.make_node("Reshape", [source, lengths], [target], node.name)

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def _average_pool(self, node: NodeProto) -> NodeProto:
        window = self._sample_shape(node.input[0])[1:]
        pool = helper.make_node(
            "AveragePool", node.input, node.output, node.name, kernel_shape=window, strides=window
        )
        self._check_window(pool)
        return pool

    def _matmul(self, node: NodeProto, computed: list[str]) -> NodeProto:
        if len(computed) > 1:
            raise _unsupported(self.source, node, "it multiplies two computed values")
        if len(self._sample_shape(computed[0])) != 1:
            raise _unsupported(self.source, node, "its input is not flat")
        if computed[0] == node.input[0]:
            return node
        if len(self.shapes[computed[0]]) != 1:
            raise _unsupported(self.source, node, "a constant on the left of a batch")
        matrix = numpy_helper.to_array(self.constants[node.input[0]])
        transposed = self._constant(f"{node.output[0]}.weight", np.ascontiguousarray(matrix.T))
        return helper.make_node("MatMul", [computed[0], transposed], node.output, node.name)

    def _concat(self, node: NodeProto, computed: list[str]) -> NodeProto:
        if len(computed) != len(node.input):
            raise _unsupported(self.source, node, "it joins a constant")
        rank = len(self.shapes[node.output[0]])
        axis = helper.get_node_attr_value(node, "axis") % rank
        if rank == 1:
            axis += 1
        return helper.make_node("Concat", node.input, node.output, node.name, axis=axis)

    def _check_gemm(self, node: NodeProto, computed: list[str]) -> None:
        attributes = _attributes(node)
        if computed != [node.input[0]] or attributes.get("transA", 0):
            raise _unsupported(self.source, node, "only a batch times a constant matrix is")

    def _check_window(self, node: NodeProto) -> None:
        attributes = _attributes(node)
        pads = list(attributes.get("pads", []))
        half = len(pads) // 2
        average = node.op_type == "AveragePool"
        refusals = {
            "it is not two-dimensional": len(self.shapes[node.input[0]]) != 4,
            "a computed kernel": any(name not in self.constants for name in node.input[1:]),
            "auto_pad": attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"),
            "padding that is not symmetric": pads[:half] != pads[half:],
            "ceil_mode": attributes.get("ceil_mode", 0) != 0,
            "a dilated pool": node.op_type != "Conv"
            and any(d != 1 for d in attributes.get("dilations", [])),
            "padding that does not count": average
            and any(pads)
            and not attributes.get("count_include_pad", 0),
        }
        for reason, refused in refusals.items():
            if refused:
                raise _unsupported(self.source, node, reason)


def _replace(field: Any, values: list[Any]) -> None:
    """The whole of a repeated field."""
    del field[:]
    field.extend(values)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
