"""What a rank runs to say where a network would lie under a strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.contract.strategy import Strategy
from runner.contract.wire import from_json, to_json
from runner.engine.layout.plan import node_plans
from runner.engine.network.prepared import Weights, read_graph


def plan_target(payload: dict[str, Any]) -> dict[str, Any]:
    """The nodes of a `prepared` network under `strategy` on `ranks` ranks."""
    prepared = Path(payload["prepared"])
    strategy = from_json(payload["strategy"], Strategy)
    nodes = node_plans(read_graph(prepared), Weights(prepared).shape, strategy, payload["ranks"])
    return {"nodes": to_json(nodes)}
