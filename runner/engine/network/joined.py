"""Several inputs, or outputs, of a network as one: their values flat, in the order of the file.

That is how VNN-LIB 1.0 counts them, and how ONNX Runtime's are counted (`OnnxRuntime`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper, numpy_helper

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network.draft import dimensions, replace_all

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


def join_inputs(graph: GraphProto, inputs: Sequence[ValueInfoProto], path: Path) -> None:
    """Their shapes are known. Each is gathered from where it stands in the one that replaces them.

    Raises InstanceError UNSUPPORTED_INSTANCE where they are not of one type.
    """
    types = {value.type.tensor_type.elem_type for value in inputs}
    if len(types) != 1:
        names = ", ".join(repr(value.name) for value in inputs)
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{path}: inputs {names} are of several types; export it with inputs of one",
        )
    joined, start = _free(graph, "inputs"), 0
    gathers = []
    for value in inputs:
        shape = dimensions(value)
        places = np.arange(start, start + prod(shape)).reshape(shape)
        index = _free(graph, f"{value.name} places")
        graph.initializer.append(numpy_helper.from_array(places, index))
        gathers.append(helper.make_node("Gather", [joined, index], [value.name], axis=0))
        start += prod(shape)
    others = [value for value in graph.input if value not in inputs]
    whole = helper.make_tensor_value_info(joined, types.pop(), [start])
    replace_all(graph.input, [whole, *others])
    replace_all(graph.node, [*gathers, *graph.node])


def join_outputs(graph: GraphProto) -> None:
    """Those that are no real numbers become such, of the first input's type."""
    element = graph.input[0].type.tensor_type.elem_type
    flat = _free(graph, "flat shape")
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), flat))
    parts = []
    for number, value in enumerate(graph.output):
        name = value.name
        if value.type.tensor_type.elem_type not in _FLOATS:
            name = _free(graph, f"{value.name} {number} real")
            graph.node.append(helper.make_node("Cast", [value.name], [name], to=element))
        parts.append(_free(graph, f"{value.name} {number} flat"))
        graph.node.append(helper.make_node("Reshape", [name, flat], [parts[-1]]))
    joined = _free(graph, "outputs")
    graph.node.append(helper.make_node("Concat", parts, [joined], axis=0))
    replace_all(graph.output, [helper.make_tensor_value_info(joined, element, None)])


def _free(graph: GraphProto, name: str) -> str:
    """A name that the file does not use."""
    used = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    used.update(name for node in graph.node for name in (*node.input, *node.output))
    while name in used:
        name += "'"
    return name
