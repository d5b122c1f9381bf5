"""Checks an ONNX network and rids it of what does not matter: constants, no-ops, its batch.

No step changes a weight: what a proof is about are the weights of the file.
"""

from __future__ import annotations

import graphlib
import hashlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    checker,
    helper,
)

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network.constants import fold_constants
from runner.engine.network.draft import Array, Draft, Shape, replace_all
from runner.engine.network.graph import Dtype
from runner.engine.network.joined import join_inputs, join_outputs
from runner.engine.network.library_errors import foreign
from runner.engine.network.network_file import NetworkFile, read_network_file
from runner.engine.network.onnx_file import DOMAINS, malformed, read_model, unsupported
from runner.engine.network.placed import place_slices

_INPUT_TYPES: dict[int, Dtype] = {
    TensorProto.FLOAT: Dtype.FLOAT32,
    TensorProto.DOUBLE: Dtype.FLOAT64,
    TensorProto.FLOAT16: Dtype.FLOAT32,
}
# These change weights, or join operators under names that the user's file does not have.
_NOT_WANTED = (
    *("fuse_bn_into_conv", "fuse_add_bias_into_conv", "fuse_matmul_add_bias_into_gemm"),
    *("fuse_qkv", "fuse_transpose_into_gemm", "rewrite_where"),
)


# These do not stay nodes of their own where onnxsim finds a convolution behind them.
_JOINED = frozenset({"Pad"})


@dataclass(frozen=True)
class Converted:
    """Nodes in topological order, for one sample: all depend on the input and reach `output`.

    `shapes`: of the values, as the file has them. `dtype`: of the weights; float32 holds those of
    float16. `lowest`: what some values are computed in, where the file casts them.
    """

    draft: Draft
    shapes: Mapping[str, Shape]
    dtype: Dtype
    output: str
    lowest: Dtype | None = None

    def sample_shape(self, name: str) -> Shape:
        """Without a 1 in front, which is a batch dimension as a rule; a scalar is a vector too."""
        shape = self.shapes[name]
        return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape or (1,)


def converted(
    path: Path, supported: AbstractSet[str], file: NetworkFile | None = None
) -> Converted:
    """Reads an ONNX file. `supported`: operators; where there are others, onnxsim may remove them.
    `file`: what `path` names, where it is read.

    Raises InstanceError as `read_model` does, MALFORMED_NETWORK, UNSUPPORTED_INSTANCE (inputs of
    other types) or UNSUPPORTED_OPERATOR.
    """
    file = file or read_network_file(path)
    draft = Draft(_one_sample(read_model(path, file), path), path, file.weights)
    for node in draft.graph.node:
        _check_normalization(node, draft)
    _check(draft)
    shapes = fold_constants(draft)
    if place_slices(draft):
        shapes = fold_constants(draft)
    (target,) = (value.name for value in draft.graph.output)
    if target not in {name for node in draft.graph.node for name in node.output}:
        raise malformed(path, "the output does not depend on the input")
    element = draft.input_info.type.tensor_type.elem_type
    for node in draft.graph.node:
        _check_dropout(node, draft)
    _check_finite(draft)
    dtype = _INPUT_TYPES[element]
    lowest = _cast_to(draft, dtype)
    if element == TensorProto.FLOAT16:
        _widen(draft)
    if lowest is not None:
        dtype = Dtype.FLOAT64
        _widen_weights(draft)
    names = {node.op_type for node in draft.graph.node}
    unknown = any(name in _JOINED or name not in supported for name in names)
    # onnxsim may take one of two equal constants for the other, which stands for another value.
    if unknown and not draft.rounded and _simplify(draft):
        shapes = draft.shapes()
    for node in draft.graph.node:
        _check_shapes(node, shapes, path)
    return Converted(draft, shapes, dtype, target, lowest)


def _one_sample(model: ModelProto, path: Path) -> ModelProto:
    _set_one_sample(model.graph, path)
    _sort(model.graph, path)
    return model


def _set_one_sample(graph: GraphProto, path: Path) -> None:
    """One input and one output. Sets what inputs leave open to 1 and leaves all other shapes to
    inference.
    """
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if not inputs or not graph.output:
        raise malformed(path, f"{len(inputs)} inputs and {len(graph.output)} outputs")
    for value in inputs:
        _check_input(value, path)
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_value < 1:
                dimension.dim_value = 1
    if len(inputs) > 1:
        join_inputs(graph, inputs, path)
    if len(graph.output) > 1:
        join_outputs(graph)
    graph.output[0].type.tensor_type.shape.SetInParent()  # the checker wants one


def _check_input(value: ValueInfoProto, path: Path) -> None:
    element = value.type.tensor_type.elem_type
    if element not in _INPUT_TYPES:
        kind = TensorProto.DataType.Name(element).lower()
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{path}: input {value.name!r} is {kind}, not float16, float32 or float64; "
            "export it with such an input",
        )


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


def _check_normalization(node: NodeProto, draft: Draft) -> None:
    """In training it depends on the other samples of a batch."""
    opset = next((o.version for o in draft.model.opset_import if o.domain in DOMAINS), 1)
    # Until opset 13 the statistics of the batch were asked for by naming them.
    asked = any(node.output[1:]) if opset < 14 else attributes_of(node).get("training_mode", 0)
    if node.op_type == "BatchNormalization" and asked:
        raise _in_training(node, draft)


def _check_dropout(node: NodeProto, draft: Draft) -> None:
    """In training it depends on chance."""
    mode = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
    if mode and np.any(draft.constants.get(mode, True)):
        raise _in_training(node, draft)


def _in_training(node: NodeProto, draft: Draft) -> InstanceError:
    reason = "it is in training mode; export the network in inference mode (model.eval())"
    return unsupported(draft.path, node, reason)


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
    for value in (draft.input_info, *draft.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT


def _cast_to(draft: Draft, own: Dtype) -> Dtype | None:
    """The lowest precision of values that the file casts from one to another; None where it casts
    none. A float64 network may be float32 within, and a float32 one float64.
    """
    other = TensorProto.FLOAT if own is Dtype.FLOAT64 else TensorProto.DOUBLE
    casts = (node for node in draft.graph.node if node.op_type == "Cast")
    found = any(attributes_of(node)["to"] == other for node in casts)
    return Dtype.FLOAT32 if found else None


def _widen_weights(draft: Draft) -> None:
    """float32 to float64, which is exact; what the file computed of them stays as rounded."""
    for name, value in draft.constants.items():
        if value.dtype == np.float32:
            draft.constants[name] = value.astype(np.float64)


def _simplify(draft: Draft) -> bool:
    """Lets onnxsim remove what does nothing, and join padding with what follows.

    Whether it did; what it fails on stays as it is.
    """
    import onnxsim  # takes a second, sympy and all, and most networks do not need it

    before = {_digest(value) for value in draft.constants.values()}
    for node in draft.graph.node:  # else onnxsim gives it a name that the file does not have
        node.name = node.name or node.output[0]
    large = {name: value for name, value in draft.constants.items() if name not in draft.small()}
    try:
        with foreign(Cause.MALFORMED_NETWORK, f"{draft.path}: onnxsim cannot simplify it"):
            model, _ = onnxsim.simplify(
                draft.lent(), skipped_optimizers=list(_NOT_WANTED), skip_constant_folding=True
            )
            inputs = [value for value in model.graph.input if value.name not in large]
            replace_all(model.graph.input, inputs)
            simpler = Draft(model, draft.path)
    except InstanceError:
        return False
    weights = [value for value in simpler.constants.values() if value.dtype.kind == "f"]
    if any(_digest(value) not in before for value in weights):
        return False  # no weight may change
    draft.model, draft.constants = simpler.model, simpler.constants | large
    return True


def _digest(value: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(value).data).digest()


def _check_shapes(node: NodeProto, shapes: Mapping[str, Shape], path: Path) -> None:
    for name in node.output:
        shape = shapes.get(name)
        if name and (shape is None or 0 in shape):
            raise unsupported(path, node, "its output's shape cannot be inferred")


def attributes_of(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
