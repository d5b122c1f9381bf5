"""What a rank runs to say what networks can be converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import TensorProto, defs, helper

from runner.engine.network.onnx_file import OLDEST_OPSET
from runner.engine.network.translation import TRANSLATIONS
from runner.problem.onnx_runtime import RUNTIME_ERRORS, session_of

_OLDEST_IR = 8


def supports_target(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The ONNX operators that are bounded, by name, and the oldest and the newest opset.

    The newest is the last that ONNX Runtime, which confirms what is found, can load.
    """
    opsets = range(OLDEST_OPSET, defs.onnx_opset_version() + 1)
    return {
        "operators": sorted(TRANSLATIONS),
        "opsets": [OLDEST_OPSET, max(filter(_loads, opsets))],
    }


def _loads(opset: int) -> bool:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_OLDEST_IR)
    try:
        session_of(model.SerializeToString())
    except RUNTIME_ERRORS:
        return False
    return True
