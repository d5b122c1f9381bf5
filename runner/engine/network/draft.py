"""A network in the making: nodes of ONNX with their constants beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network.library_errors import foreign
from runner.engine.network.network_file import LARGE
from runner.engine.network.rounded import Rounded

Shape = tuple[int, ...]
Array = NDArray[Any]

# Of one value; more than any known network has, and half a GiB in float64.
_MOST_VALUES = 1 << 26
_MOST_DIMENSIONS = 32


class Draft:
    """`model` of one `input`, with one sample as its batch; `constants`: its initializers, by name.
    `weights`: the values of some, where they do not lie in the model.

    `rounded`: what those are in real arithmetic that the file computes from others and rounds.

    Raises InstanceError MALFORMED_NETWORK where the values of a constant are not as its shape says.
    """

    def __init__(
        self, model: ModelProto, path: Path, weights: Mapping[str, Array] | None = None
    ) -> None:
        self.path = path
        weights = weights or {}
        self.constants: dict[str, Array] = {}
        self.rounded: dict[str, Rounded] = {}
        for tensor in model.graph.initializer:
            unread = f"{path}: the values of {tensor.name!r} cannot be read; export it again"
            with foreign(Cause.MALFORMED_NETWORK, unread):
                value = weights.get(tensor.name)
                self.constants[tensor.name] = (
                    numpy_helper.to_array(tensor) if value is None else value
                )
        del model.graph.initializer[:]
        self.model = model = _moved(model)
        # A network may be as large as its file; what a small file blows up is refused.
        self._most = max(_MOST_VALUES, *(value.size for value in self.constants.values()), 0)
        # Old versions list initializers among the inputs too, and the oldest insist on it.
        model.ir_version = max(model.ir_version, 4)
        (self.input,) = (v.name for v in model.graph.input if v.name not in self.constants)

    @property
    def graph(self) -> GraphProto:
        return self.model.graph

    @property
    def input_info(self) -> ValueInfoProto:
        info: ValueInfoProto
        (info,) = (value for value in self.graph.input if value.name == self.input)
        return info

    def lent(self) -> ModelProto:
        """The model for ONNX's tools: inputs stand in for the large constants."""
        graph, small = self.graph, self.small()
        large = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in self.constants.items()
            if name not in small
        ]
        replace_all(graph.input, [self.input_info, *large])
        replace_all(
            graph.initializer,
            [numpy_helper.from_array(np.asarray(value), name) for name, value in small.items()],
        )
        return self.model

    def small(self) -> dict[str, Array]:
        return {name: value for name, value in self.constants.items() if value.size < LARGE}

    def shapes(self) -> dict[str, Shape]:
        """Of all values whose rank is known; an unknown length is 0.

        Raises InstanceError: MALFORMED_NETWORK where shapes do not fit, UNSUPPORTED_INSTANCE where
        a value is too large.
        """
        del self.graph.value_info[:]
        (output,) = (value.type.tensor_type for value in self.graph.output)
        output.ClearField("shape")  # whatever the file says, inference knows better
        with foreign(
            Cause.MALFORMED_NETWORK, f"{self.path}: the shapes do not fit; export it again"
        ):
            # Not with `data_prop`, which computes values and has no limit.
            graph = shape_inference.infer_shapes(self.lent(), strict_mode=True).graph
        output.CopyFrom(graph.output[0].type.tensor_type)
        shapes = {
            value.name: dimensions(value)
            for value in (*graph.input, *graph.value_info, *graph.output)
            if value.type.tensor_type.HasField("shape")
        }
        producers = {name: node for node in self.graph.node for name in node.output}
        for name, shape in shapes.items():
            self.check_size(name, shape, producers.get(name))
        return shapes

    def check_size(self, name: str, shape: Shape, producer: NodeProto | None) -> None:
        """Raises InstanceError UNSUPPORTED_INSTANCE for a value larger than any should be."""
        if len(shape) > _MOST_DIMENSIONS:
            size = f"{len(shape)} dimensions, more than {_MOST_DIMENSIONS}"
        elif math.prod(max(1, length) for length in shape) > self._most:
            size = f"shape {list(shape)}, more than {self._most:,} values"
        else:
            return
        kind = f" (operator {producer.op_type})" if producer else ""
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE, f"{self.path}: {name!r}{kind} has {size}; make it smaller"
        )


def _moved(model: ModelProto) -> ModelProto:
    """A copy: what is deleted of a message is freed with it."""
    moved = ModelProto()
    moved.ParseFromString(model.SerializeToString())
    return moved


def dimensions(value: ValueInfoProto) -> Shape:
    """0 stands for an unknown length."""
    return tuple(max(0, dimension.dim_value) for dimension in value.type.tensor_type.shape.dim)


def replace_all(field: Any, values: list[Any]) -> None:
    """The whole of a repeated field."""
    del field[:]
    field.extend(values)
