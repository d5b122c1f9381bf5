"""What type a computed value has in the file, as far as it is not the network's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper

from runner.engine.network.convert import attributes_of
from runner.engine.network.graph import Node
from runner.engine.network.translation.builder import Builder
from runner.engine.network.translation.registry import Translation

_TRUTHS = frozenset(
    {
        *("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor"),
    }
)
# Where the input is that has the type of the output.
_TYPED_BY = {"OneHot": 2, "Where": 1}
_TYPED_BY_ZERO_POINT = 2


def kind_of(build: Builder, name: str) -> np.dtype:
    """Of a value of the file; the network's own for what is a real number."""
    own = np.dtype(str(build.network.dtype))
    makers = {out: node for node in build.network.draft.graph.node for out in node.output}
    while name in makers:
        node = makers[name]
        if node.op_type in _TRUTHS:
            return np.dtype(np.bool_)
        if node.op_type in ("ArgMax", "ArgMin"):
            return np.dtype(np.int64)
        if node.op_type == "Cast":
            wanted = attributes_of(node)["to"]
            if wanted in (TensorProto.FLOAT, TensorProto.DOUBLE):
                return own
            return helper.tensor_dtype_to_np_dtype(wanted)
        if node.op_type == "DequantizeLinear":
            return own
        if node.op_type == "QuantizeLinear":
            given = len(node.input) > _TYPED_BY_ZERO_POINT
            zero = build.network.draft.constants[node.input[2]] if given else np.zeros(1, np.uint8)
            return zero.dtype
        name = node.input[_TYPED_BY.get(node.op_type, 0)]
    constant = build.network.draft.constants.get(name)
    return own if constant is None or constant.dtype.kind == "f" else constant.dtype


def is_whole(build: Builder, name: str) -> bool:
    """Whether it is an integer or a truth, which is 0 or 1 in the bound graph."""
    return kind_of(build, name).kind in "iub"


def of_numbers(translation: Translation) -> Translation:
    """Refuses integers of few bits, or without a sign, which would wrap around."""

    def checked(build: Builder, node: NodeProto) -> Node | Sequence[Node]:
        for kind in (kind_of(build, name) for name in node.input if name):
            if kind.kind in "iu" and kind not in (np.int32, np.int64):
                raise build.refused(node, f"it computes with {kind}, which wraps around")
        return translation(build, node)

    return checked


def of_reals(translation: Translation) -> Translation:
    """Refuses integers, which it would round."""

    def checked(build: Builder, node: NodeProto) -> Node | Sequence[Node]:
        if is_whole(build, node.input[0]):
            raise build.refused(node, "it rounds integers")
        return translation(build, node)

    return checked
