"""Rewrites an ONNX network so that it takes a batch and holds no more operators than it must.

No step changes a weight: what a proof is about are the weights of the file.
"""

from __future__ import annotations

import graphlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxsim
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper

from runner.errors import InstanceError
from runner.network.constants import fold_constants
from runner.network.draft import Array, Draft, Shape, dimensions, replace_all
from runner.network.foreign import foreign
from runner.network.graph import Dtype
from runner.network.onnx_file import DOMAINS, malformed, read_model, unsupported
from runner.vocabulary import Cause

_RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_POINTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Relu", "Sigmoid", "Tanh"})
_WINDOWS = frozenset({"AveragePool", "Conv", "GlobalAveragePool", "MaxPool"})
_OTHERS = frozenset({"BatchNormalization", "Concat", "Dropout", "Gemm", "Identity", "MatMul"})
SUPPORTED = _RESHAPES | _POINTWISE | _WINDOWS | _OTHERS

_BATCH = "batch"
_INPUT_TYPES = {
    TensorProto.FLOAT: Dtype.FLOAT32,
    TensorProto.DOUBLE: Dtype.FLOAT64,
    TensorProto.FLOAT16: Dtype.FLOAT32,
}
# These change weights, or join operators under names that the user's file does not have.
_NOT_WANTED = (
    *("fuse_bn_into_conv", "fuse_add_bias_into_conv", "fuse_matmul_add_bias_into_gemm"),
    *("fuse_qkv", "rewrite_where"),
    "fuse_transpose_into_gemm",  # dies when a Transpose leaves its permutation to the default
)


@dataclass(frozen=True)
class Batchable:
    """The rewritten network; its first dimension is the batch, `shapes` leave it out.

    `dtype`: what its weights are and what it is to be computed in. `half`: the file's own type is
    float16, of which float32 holds every weight.
    """

    model: ModelProto
    constants: Mapping[str, Array]
    shapes: Mapping[str, Shape]
    dtype: Dtype
    half: bool

    @property
    def input_shape(self) -> Shape:
        return self.shapes[self.model.graph.input[0].name]

    @property
    def output_shape(self) -> Shape:
        return self.shapes[self.model.graph.output[0].name]


def batchable(path: Path) -> Batchable:
    """An ONNX file as a network that takes any batch.

    Identity and Dropout go, constants are folded, a reshape keeps the batch dimension, and a
    network of vectors (no batch dimension) gets one. Raises InstanceError as `read_model` does,
    UNSUPPORTED_INSTANCE (several inputs or outputs, a batch of more than one) or
    UNSUPPORTED_OPERATOR.
    """
    model = read_model(path)
    _set_one_sample(model.graph, path)
    _sort(model.graph, path)
    draft = Draft(model, path)
    _check(draft)
    shapes = fold_constants(draft)
    element = draft.graph.input[0].type.tensor_type.elem_type
    for node in draft.graph.node:
        _check_training(node, draft)
    _check_finite(draft)
    if element == TensorProto.FLOAT16:
        _widen(draft)
    if _simplify(draft):
        shapes = draft.shapes()
    return _Rewriting(draft, shapes).result(_INPUT_TYPES[element], element == TensorProto.FLOAT16)


def _set_one_sample(graph: GraphProto, path: Path) -> None:
    """Sets what the input leaves open to 1 and leaves all other shapes to inference."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{path}: {len(inputs)} inputs and {len(graph.output)} outputs; "
            "only networks with one input and one output are supported",
        )
    (value,) = inputs
    element = value.type.tensor_type.elem_type
    if element not in _INPUT_TYPES:
        kind = TensorProto.DataType.Name(element).lower()
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{path}: input {value.name!r} is {kind}, not float16, float32 or float64; "
            "export it with such an input",
        )
    for dimension in value.type.tensor_type.shape.dim:
        if dimension.dim_value < 1:
            dimension.dim_value = 1
    shape = dimensions(value)
    if not shape or (len(shape) > 1 and shape[0] != 1):
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{path}: input {value.name!r} has shape {list(shape)}; "
            "export it with a batch dimension of 1 in front",
        )
    # Whatever the file says of the output's shape, inference knows better.
    tensor_type = graph.output[0].type.tensor_type
    tensor_type.ClearField("shape")
    tensor_type.shape.SetInParent()  # the checker wants one


def _sort(graph: GraphProto, path: Path) -> None:
    """ONNX Runtime takes nodes in any order, ONNX's own tools only each after its inputs."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output}
    before = {
        index: {maker[name] for name in node.input if name in maker}
        for index, node in enumerate(graph.node)
    }
    if all(earlier < index for index, needed in before.items() for earlier in needed):
        return
    try:
        order = list(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError as error:
        raise malformed(path, "its nodes form a cycle") from error
    replace_all(graph.node, [graph.node[index] for index in order])


def _check(draft: Draft) -> None:
    try:
        checker.check_model(draft.lent())
    except checker.ValidationError as error:
        raise malformed(draft.path, error) from error
    draft.graph.output[0].type.tensor_type.ClearField("shape")


def _check_training(node: NodeProto, draft: Draft) -> None:
    """A network that is still in training depends on its batch, or on chance."""
    attributes = attributes_of(node)
    mode = node.input[2] if len(node.input) > 2 else ""
    opset = next(o.version for o in draft.model.opset_import if o.domain in DOMAINS)
    training = {
        "Dropout": mode != "" and bool(np.any(draft.constants.get(mode, True))),
        "BatchNormalization": attributes.get("training_mode", 0) != 0
        # Until opset 13 the statistics of the batch were asked for by naming them.
        or (opset < 14 and any(node.output[1:])),
    }
    if training.get(node.op_type, False):
        reason = "it is in training mode; export the network in inference mode (model.eval())"
        raise unsupported(draft.path, node, reason)


def _check_finite(draft: Draft) -> None:
    for name, value in draft.constants.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            kind = "NaN" if np.isnan(value).any() else "infinite"
            raise InstanceError(
                Cause.MALFORMED_NETWORK,
                f"{draft.path}: a value of the weight {name!r} is {kind}; "
                "export the network with weights that are finite",
            )


def _widen(draft: Draft) -> None:
    """float16 to float32, which is exact."""
    for name, value in draft.constants.items():
        if value.dtype == np.float16:
            draft.constants[name] = value.astype(np.float32)
    del draft.graph.value_info[:]
    for value in (*draft.graph.input, *draft.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _simplify(draft: Draft) -> bool:
    """Lets onnxsim remove what does nothing. Whether it did; what it fails on stays as it is."""
    before = {_digest(value) for value in draft.constants.values()}
    try:
        with foreign(Cause.MALFORMED_NETWORK, f"{draft.path}: onnxsim cannot simplify it"):
            model, _ = onnxsim.simplify(
                draft.lent(), skipped_optimizers=list(_NOT_WANTED), skip_constant_folding=True
            )
            simpler = Draft(model, draft.path)
    except InstanceError:
        return False
    weights = [value for value in simpler.constants.values() if value.dtype.kind == "f"]
    if any(_digest(value) not in before for value in weights):
        return False  # no weight may change
    draft.model = simpler.model
    draft.constants |= simpler.constants
    return True


def _digest(value: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(value).data).digest()


class _Rewriting:
    """Rewrites the nodes one by one; `shapes` are as the file has them, of one sample."""

    def __init__(self, draft: Draft, shapes: Mapping[str, Shape]) -> None:
        self._draft = draft
        self._path = draft.path
        self._constants = draft.constants
        self._shapes = shapes

    def result(self, dtype: Dtype, half: bool) -> Batchable:
        graph = self._draft.graph
        nodes = [self._rewritten(node) for node in graph.node]
        source = next(v.name for v in graph.input if v.name not in self._constants)
        computed = {name for node in nodes for name in node.output}
        (target,) = (value.name for value in graph.output)
        if target not in computed:
            raise malformed(self._path, "the output does not depend on the input")
        used = {name for node in nodes for name in node.input}
        self._draft.constants = {n: v for n, v in self._constants.items() if n in used}
        shapes = {name: self._sample_shape(name) for name in (source, *computed)}
        values = {name: _value_info(name, dtype, shape) for name, shape in shapes.items()}
        replace_all(graph.input, [values.pop(source)])
        replace_all(graph.output, [values.pop(target)])
        replace_all(graph.value_info, list(values.values()))
        replace_all(graph.node, nodes)
        return Batchable(self._draft.whole(), self._draft.constants, shapes, dtype, half)

    def _sample_shape(self, name: str) -> Shape:
        """Without the batch dimension, which a vector does not have yet; a scalar is a vector."""
        shape = self._shapes[name]
        return shape[1:] if len(shape) > 1 else shape or (1,)

    def _rewritten(self, node: NodeProto) -> NodeProto:
        self._check_shape(node)
        match node.op_type:
            case "GlobalAveragePool":
                return self._average_pool(node)
            case "MatMul":
                return self._matmul(node)
            case "Concat":
                return self._concat(node)
            case kind if kind in _RESHAPES:
                return self._reshape(node)
        return node

    def _check_shape(self, node: NodeProto) -> None:
        if node.op_type not in SUPPORTED:
            names = ", ".join(sorted(SUPPORTED))
            raise unsupported(self._path, node, f"supported operators: {names}")
        shape = self._shapes.get(node.output[0])
        if shape is None or 0 in shape:
            raise unsupported(self._path, node, "its output's shape cannot be inferred")
        if len(shape) > 1 and shape[0] != 1:
            raise unsupported(
                self._path, node, f"its output {list(shape)} has no batch dimension in front"
            )

    def _reshape(self, node: NodeProto) -> NodeProto:
        source, target = node.input[0], node.output[0]
        shape = self._sample_shape(target)
        if len(shape) == 1:
            return helper.make_node("Flatten", [source], [target], node.name, axis=1)
        lengths = self._constant(f"{target}.shape", np.array([-1, *shape], dtype=np.int64))
        return helper.make_node("Reshape", [source, lengths], [target], node.name)

    def _constant(self, name: str, value: Array) -> str:
        self._constants[name] = value
        return name

    def _average_pool(self, node: NodeProto) -> NodeProto:
        window = self._sample_shape(node.input[0])[1:]
        return helper.make_node(
            "AveragePool", node.input, node.output, node.name, kernel_shape=window, strides=window
        )

    def _matmul(self, node: NodeProto) -> NodeProto:
        """A constant on the left of a vector goes to its right."""
        matrix, vector = node.input
        if matrix not in self._constants or vector in self._constants:
            return node
        if len(self._shapes[vector]) != 1:
            raise unsupported(self._path, node, "a constant on the left of a batch")
        right = self._constant(f"{node.output[0]}.weight", self._constants[matrix].T.copy())
        return helper.make_node("MatMul", [vector, right], node.output, node.name)

    def _concat(self, node: NodeProto) -> NodeProto:
        rank = len(self._shapes[node.output[0]])
        axis = attributes_of(node)["axis"] % rank
        return helper.make_node(
            "Concat", node.input, node.output, node.name, axis=axis + 1 if rank == 1 else axis
        )


def _value_info(name: str, dtype: Dtype, shape: Shape) -> ValueInfoProto:
    element = TensorProto.DOUBLE if dtype is Dtype.FLOAT64 else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, element, [_BATCH, *shape])


def attributes_of(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
