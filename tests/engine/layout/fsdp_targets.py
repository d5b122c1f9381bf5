"""What ranks compute in the tests of `fsdp`: bounds, as digests of their bits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from small_networks import CPU, SmallNetwork, box_of, cnn, mlp, specs_of
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.budget import CORE
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.tagging import NoTagger
from runner.engine.bounds.tiles import row_block
from runner.engine.clock import Deadline, DeadlineReached
from runner.engine.layout.block_owners import plan_blocks
from runner.engine.layout.blocked_weights import BlockedWeights, TensorSource
from runner.engine.layout.group import joined_group
from runner.engine.network import blocks
from runner.engine.network.blocks import weights_of
from runner.engine.network.graph import Graph
from runner.engine.network.prepared import PreparedWeights, read_graph
from runner.engine.specs import Specs, box_around
from runner.problem.property.read_property import read_property

Payload = dict[str, Any]
SMALL = {
    "mlp": lambda: mlp(20, 64, 50, 40, 6),
    "cnn": lambda: cnn(channels=8, size=8),
}


def bounds(payload: Payload) -> Payload:
    """Digests of all bounds by method, this rank's resting bytes, and what it sent."""
    with joined_group(CPU) as group:
        graph, source, box, specs = _question(payload)
        plan = plan_blocks(weights_of(graph, source.shape), group.size)
        weights = BlockedWeights(graph, source, plan, group, CPU, NoTagger())
        network = BoundNetwork(graph, weights)
        alpha = AlphaSettings(payload.get("iterations", 20))
        digests = {"forward": _forward(network, box)}
        for method in payload["methods"]:
            settings = Settings(Method(method), row_block(graph, CORE), alpha)
            propagator = Propagator(network, settings)
            found = propagator.bound(box)
            digests[method] = {
                name: _digest(interval.lower, interval.upper)
                for name, interval in found.intervals.items()
            } | {"specs": _digest(propagator.spec_bounds(found, specs))}
        small = {p for node in graph.nodes for p in node.parameters.values()} - set(plan)
        return {
            "digests": digests,
            "weight_bytes": weights.resting_bytes - sum(source.tensor(p).nbytes for p in small),
            "blocks": [block.bytes for parts in plan.values() for block in parts],
            "sent": group.traffic.bytes,
        }


def _question(payload: Payload) -> tuple[Graph, TensorSource, Interval, Tensor]:
    blocks.LEAST_BLOCK_BYTES = payload.get("least_block_bytes", blocks.LEAST_BLOCK_BYTES)
    if "small" in payload:
        network: SmallNetwork = SMALL[payload["small"]]()
        return network.graph, network.source, box_of(network, 0.1, batch=2), specs_of(network, 5)
    graph = read_graph(Path(payload["prepared"]))
    case = read_property(Path(payload["property"])).cases[0]
    box = box_around(case, graph.input.shape, CPU)
    return graph, PreparedWeights(Path(payload["prepared"])), box, Specs.of(case, CPU).rows.float()


def _forward(network: BoundNetwork, box: Interval) -> dict[str, str]:
    """Of an attack's step: outputs and their gradient."""
    x = box.centre.requires_grad_()
    outputs = network.forward(x)
    (gradient,) = torch.autograd.grad(outputs.sum(), x)
    return {"outputs": _digest(outputs), "gradient": _digest(gradient)}


def _digest(*tensors: Tensor) -> str:
    content = b"".join(tensor.detach().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()[:16]


def decisions(payload: Payload) -> Payload:
    """Every rank proposes something else; the traffic of a broadcast is its sender's."""
    with joined_group(CPU) as group:
        decided = [group.decide(group.rank == 0), group.decide(group.rank != 0)]
        tensor = torch.full((3,), float(group.rank))
        group.broadcast(tensor, group.size - 1)
        traffic = vars(group.traffic)
        return {"decided": decided, "tensor": tensor.tolist(), **traffic}


def deadline(payload: Payload) -> Payload:
    """Only rank 0's clock counts: the others have all the time in the world, or none."""
    with joined_group(CPU) as group:
        seconds = payload["rank_0"] if group.rank == 0 else payload["others"]
        checks = Deadline(group, seconds)
        try:
            checks.check()
        except DeadlineReached:
            return {"reached": True, "half": checks.passed(0.5)}
        return {"reached": False, "half": checks.passed(0.5)}
