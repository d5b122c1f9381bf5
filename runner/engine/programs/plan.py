"""What a rank runs to say where a network would lie under a strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.contract.strategy import Strategy
from runner.contract.wire import from_json, to_json
from runner.engine.layout.plan import node_plans
from runner.engine.network.load import prepare
from runner.engine.network.prepared import Weights


def plan_target(payload: dict[str, Any]) -> dict[str, Any]:
    """`network` (ONNX) is converted to `prepared`; its nodes under `strategy` on `ranks` ranks.

    Raises InstanceError for a network that cannot be converted or laid out so.
    """
    network, prepared = Path(payload["network"]), Path(payload["prepared"])
    strategy = from_json(payload["strategy"], Strategy)
    graph = prepare(network, prepared)
    nodes = node_plans(graph, Weights(prepared).shape, strategy, payload["ranks"])
    return {"nodes": to_json(nodes)}
