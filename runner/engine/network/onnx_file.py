"""Reads a user's ONNX file: what is no network, or of another time or place, is told apart here."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, inliner

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network.library_errors import foreign
from runner.engine.network.network_file import NetworkFile

DOMAINS = ("", "ai.onnx")  # the two names of the standard's own operators
# ONNX Runtime promises nothing before 7, where Dropout and BatchNormalization meant training.
OLDEST_OPSET = 7
_DAMAGED = "download it again"


def read_model(path: Path, file: NetworkFile) -> ModelProto:
    """The network with all its weights but the large ones of `file`, also those that lie in files
    beside it.

    Raises InstanceError: MISSING_FILE, MALFORMED_NETWORK, UNSUPPORTED_INSTANCE (of a version that
    is not known) or UNSUPPORTED_OPERATOR (an operator outside the standard).
    """
    model = _parsed(file.content, path)
    _check_versions(model, path)
    if model.functions:
        with foreign(Cause.MALFORMED_NETWORK, f"{path}: its functions cannot be written out"):
            model = inliner.inline_local_functions(model)
    for node in nodes_within(model.graph.node):
        if not onnx.defs.has(node.op_type, node.domain):
            raise unsupported(path, node, "it is not a standard ONNX operator")
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{path}: {name!r} is a sparse weight; save it as a dense one",
        )
    _load_external(model, path, file.weights)
    return model


def malformed(path: Path, error: Exception | str, remedy: str = "export it again") -> InstanceError:
    """`error`: what a tool says of the file; its first line is the reason."""
    reason = next(iter(str(error).strip().splitlines()), "no reason given")
    return InstanceError(
        Cause.MALFORMED_NETWORK, f"{path}: not a valid ONNX network ({reason}); {remedy}"
    )


def unsupported(path: Path, node: NodeProto, reason: str) -> InstanceError:
    """Names the operator and the node, by its output where it has no name."""
    return InstanceError(
        Cause.UNSUPPORTED_OPERATOR,
        f"{path}: operator {node.op_type} (node {node.name or next(iter(node.output), '')!r}) "
        f"is not supported: {reason}",
    )


def nodes_within(nodes: Iterator[NodeProto]) -> Iterator[NodeProto]:
    """Those of the branches and loops too."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from nodes_within(graph.node)


def _parsed(content: bytes, path: Path) -> ModelProto:
    if not content:
        raise malformed(path, "the file is empty", _DAMAGED)
    try:
        model = onnx.load_model_from_string(content)
        _check_text(model)
    except DecodeError as error:
        archive = _archive(content)
        if archive is None:
            raise malformed(path, error, _DAMAGED) from error
        reason, remedy = f"it is a {archive} archive", "unpack it and name the network inside"
        raise malformed(path, reason, remedy) from error
    except UnicodeDecodeError as error:
        raise malformed(path, f"a name in it is not text: {error}", _DAMAGED) from error
    if not model.graph.node:
        raise malformed(path, "no operators", _DAMAGED)
    return model


def _archive(content: bytes) -> str | None:
    if zipfile.is_zipfile(io.BytesIO(content)):
        return "zip"
    return "tar" if tarfile.is_tarfile(io.BytesIO(content)) else None


def _check_text(message: Message) -> None:
    """Raises UnicodeDecodeError for a name that protobuf would give as bytes, far from here."""
    fields = _of_tensor(message) if isinstance(message, TensorProto) else message.ListFields()
    for field, value in fields:
        parts = (value,) if isinstance(value, (bytes, str, Message)) else value
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in parts:
                _check_text(part)
        elif field.type == FieldDescriptor.TYPE_STRING:
            for part in parts:
                if isinstance(part, bytes):
                    part.decode()


def _of_tensor(tensor: TensorProto) -> Iterator[tuple[FieldDescriptor, Any]]:
    """All but the values, each look at which is a copy."""
    for field in tensor.DESCRIPTOR.fields:
        if field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING):
            value = getattr(tensor, field.name)
            yield field, value if field.is_repeated else [value]


def _check_versions(model: ModelProto, path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    opset = max((o.version for o in model.opset_import if o.domain in DOMAINS), default=1)
    if model.ir_version > onnx.IR_VERSION:
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{path}: IR version {model.ir_version} is newer than the newest known, "
            f"{onnx.IR_VERSION}; save it with an older ONNX, or with model.ir_version = 10",
        )
    if not OLDEST_OPSET <= opset <= newest:
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{path}: opset {opset} is not known, only {OLDEST_OPSET} to {newest} are; "
            "export it with opset_version=17",
        )


def _load_external(model: ModelProto, path: Path, held: Container[str]) -> None:
    """Weights in files beside the network, which must lie in its folder; `held`: but for these."""
    folder = path.parent.resolve()
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL or tensor.name in held:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        file = (folder / location).resolve()
        weight = f"{path}: the weight {tensor.name!r} lies in {location!r}"
        if not location or not file.is_relative_to(folder):
            raise InstanceError(
                Cause.MALFORMED_NETWORK,
                f"{weight}, which is no file in the network's folder; save it again as one file",
            )
        if not file.is_file():
            raise InstanceError(
                Cause.MISSING_FILE, f"{weight}; there is no such file {file}; put it there"
            )
        with foreign(Cause.MALFORMED_NETWORK, f"{weight}, which cannot be read; {_DAMAGED}"):
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in nodes_within(model.graph.node):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
