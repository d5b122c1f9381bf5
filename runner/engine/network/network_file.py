"""An ONNX file in memory, its large weights held once for everyone who reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from runner.contract.vocabulary import Cause
from runner.problem.files import read_bytes

Weight = NDArray[np.floating]

# In values; ONNX's tools and ONNX Runtime copy what lies in a model at each step.
LARGE = 1 << 20
_TYPES: dict[int, type[np.floating]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
}


@dataclass(frozen=True)
class NetworkFile:
    """`content`: the bytes of the file. `weights`: large ones, by name, as the file has them; of
    these `content` has name, type and shape, and says that they lie in a file: this one.
    """

    content: bytes
    weights: Mapping[str, Weight]


def read_network_file(path: Path) -> NetworkFile:
    """Raises InstanceError: MISSING_FILE or MALFORMED_NETWORK (damaged gzip). What is no network
    is left for `read_model` to say.
    """
    content = read_bytes(path, Cause.MALFORMED_NETWORK)
    if len(content) < LARGE * np.float32().itemsize:
        return NetworkFile(content, {})
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        return NetworkFile(content, {})
    tensors = model.graph.initializer
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors):
        return NetworkFile(content, {})  # one folder for all that ONNX Runtime looks up
    del content
    weights = _taken(model, path.resolve().name)
    return NetworkFile(model.SerializeToString(), weights)


def _taken(model: ModelProto, file: str) -> dict[str, Weight]:
    """Takes the large weights out of `model`; `file`: where it then says that they lie."""
    weights: dict[str, Weight] = {}
    for tensor in model.graph.initializer:
        dtype = _TYPES.get(tensor.data_type)
        size = prod(tensor.dims)
        if dtype is None or size < LARGE or tensor.name in weights:
            continue
        raw = tensor.raw_data
        if len(raw) != size * dtype().itemsize:
            continue  # in another field, or damaged
        weights[tensor.name] = np.frombuffer(raw, dtype).reshape(tuple(tensor.dims))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=file)
    return weights
