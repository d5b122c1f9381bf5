"""What a rank runs to say where a network would lie under a strategy. No torch: it takes long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.contract.strategy import Strategy
from runner.contract.wire import from_json, to_json
from runner.engine.layout.node_plans import node_plans
from runner.engine.network.onnx_graph import onnx_graph


def plan_target(payload: dict[str, Any]) -> dict[str, Any]:
    """The nodes of `network` (ONNX) under `strategy` on `ranks` ranks, and how large it is.

    Raises InstanceError for a network that cannot be converted or laid out so.
    """
    strategy = from_json(payload["strategy"], Strategy)
    graph, arrays = onnx_graph(Path(payload["network"]))
    nodes = node_plans(graph, lambda name: arrays[name].shape, strategy, payload["ranks"])
    return {
        "nodes": to_json(nodes),
        "inputs": graph.input.size,
        "weight_bytes": sum(array.nbytes for array in arrays.values()),
    }
