"""What a rank of a gang runs: prepare a network, or verify one instance under a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributed.distributed_c10d import BackendConfig

from runner.contract.errors import InstanceError
from runner.contract.limits import cap_memory, lift_memory_cap
from runner.contract.question import Job, RankReport
from runner.contract.shell import MeasuredFailure
from runner.contract.strategy import Engine, Strategy
from runner.contract.vocabulary import Cause, Phase, Verdict
from runner.contract.wire import job_from_json, job_to_json, report_to_json
from runner.engine.bounds.budget import budget_of
from runner.engine.bounds.rounding import plain_products
from runner.engine.clock import Deadline
from runner.engine.engines import engine_for
from runner.engine.finding import Confirmation, Finding
from runner.engine.layout.devices import GLOO, rank_device
from runner.engine.layout.group import Group, joined_group
from runner.engine.measure.probe import Probe
from runner.engine.network.graph import Graph
from runner.engine.network.load import prepare
from runner.engine.network.prepared import read_graph
from runner.engine.network.replay import box_points
from runner.engine.programs.gang import check_gang, world_for
from runner.engine.search.search import Progress
from runner.engine.verification import Verification
from runner.problem.property.model import Property
from runner.problem.property.read import read_property
from runner.problem.property.shapes import check_shapes

# Part of the timeout kept for ending: what a rank stops before, in seconds and as a share.
ENDING_SECONDS = 0.5
ENDING_SHARE = 0.05


def get_ready() -> None:
    """What every rank would do first, done once for all that are forked later."""
    some_job = Job("", "", "", Strategy("some"), ranks=1, timeout_s=1.0)
    job_from_json(job_to_json(some_job))  # cattrs writes its functions when they are first needed
    report_to_json(RankReport(rank=0, verdict=Verdict.UNKNOWN))
    BackendConfig(GLOO)  # looks for plugins in whatever is installed


def prepare_target(payload: dict[str, Any]) -> dict[str, Any]:
    """Converts `network` to `prepared` and checks that `property`, unless it is empty, fits it.

    In the property's box the network is held against ONNX Runtime. Raises InstanceError for
    whatever is wrong with either.
    """
    network, prepared, source = (Path(payload[key]) for key in ("network", "prepared", "property"))

    def points(graph: Graph) -> Sequence[NDArray[np.floating]]:
        if not payload["property"]:
            return ()
        instance = read_property(source)
        check_fit(instance, graph, str(source), network)
        return box_points(instance)

    graph = prepare(network, prepared, points)
    return {"inputs": graph.input.size, "outputs": graph.node(graph.output).size}


def verify_target(payload: dict[str, Any]) -> dict[str, Any]:
    """A job as JSON in, this rank's report out."""
    return report_to_json(verify_job(job_from_json(payload)))


def verify_job(job: Job) -> RankReport:
    """Verifies one instance as rank RANK of WORLD_SIZE (of the environment).

    Raises MeasuredFailure from whatever goes wrong once measuring has begun, InstanceError before:
    for a gang, too, that is not the one which the job is for.
    """
    rank = world_for(job).rank
    strategy = job.strategy
    if strategy.engine is Engine.NULL:
        return RankReport(rank, Verdict.UNKNOWN, Cause.INCOMPLETE, method="null")
    device = rank_device(job.device)
    with Probe(device) as probe, joined_group(device) as group:
        check_gang(job, group)
        costs = Costs(device, probe, group)
        try:
            finding = verified(job, strategy, costs)
        except Exception as error:
            lift_memory_cap()  # else there may be none to tell with
            raise MeasuredFailure(costs.so_far()) from error
        if rank == 0 and job.progress and costs.progress.history:
            costs.progress.write(Path(job.progress))
        return RankReport(
            rank=rank,
            verdict=finding.verdict,
            cause=finding.cause,
            message=finding.message,
            method=finding.method,
            lower_bound=finding.lower_bound,
            counterexample=finding.verdict is Verdict.SAT,
            **costs.so_far(),
        )


@dataclass
class Costs:
    """What a rank takes; known at any moment, also when it fails."""

    device: torch.device
    probe: Probe
    group: Group
    progress: Progress = field(default_factory=Progress)
    weight_bytes: int | None = None

    def so_far(self) -> dict[str, Any]:
        """As fields of a RankReport."""
        return {
            "device": str(self.device),
            "weight_bytes": self.weight_bytes,
            "comm_bytes": self.group.traffic.bytes,
            "comm_s": self.group.traffic.seconds,
            "collectives": self.group.traffic.collectives,
            "domains": self.progress.domains,
            "rounds": self.progress.rounds,
            "domains_per_s": self.progress.domains_per_s,
            "depth": self.progress.depth,
            **self.probe.measurements(),
        }


def verified(job: Job, strategy: Strategy, costs: Costs) -> Finding:
    """Loads network and property, and verifies."""
    device, probe, group = costs.device, costs.probe, costs.group
    plain_products()
    if job.memory_limit_bytes is not None:
        # Not before: a backend whose threads get no memory aborts the rank or waits for ever.
        cap_device_memory(device, job.memory_limit_bytes)
    ending = min(ENDING_SECONDS, ENDING_SHARE * job.timeout_s)
    deadline = Deadline(group, job.timeout_s - ending)
    network, prepared = Path(job.network), Path(job.prepared)
    with probe.phase(Phase.LOAD):
        instance = read_property(Path(job.property))
        if job.prepared:
            check_fit(instance, read_graph(prepared), job.property, network)
        budget = budget_of(device, job.work_bytes)
        engine = engine_for(strategy, network, prepared, group, device, probe, budget)
        costs.weight_bytes = engine.weight_bytes
    return Verification(
        engine,
        instance,
        job.method,
        job.seed,
        device,
        deadline,
        Confirmation(instance, network, Path(job.counterexample), group),
        probe,
        costs.progress,
        job.workload,
    ).run()


def cap_device_memory(device: torch.device, limit_bytes: int) -> None:
    """Tensors of this rank may take so much: on a GPU of its memory, else of the host's."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), device)
    else:
        cap_memory(limit_bytes)


def check_fit(instance: Property, graph: Graph, source: str, network: Path) -> None:
    """Raises InstanceError SHAPE_MISMATCH unless the property speaks of this network's sizes."""
    outputs = graph.node(graph.output).size
    for name, declared, actual in (
        ("inputs", instance.inputs, graph.input.size),
        ("outputs", instance.outputs, outputs),
    ):
        if declared != actual:
            raise InstanceError(
                Cause.SHAPE_MISMATCH,
                f"{source}: declares {declared} {name}, {network} has {actual}; "
                "check that the row of instances.csv pairs the right files",
            )
    check_shapes(instance, source, network, graph.input.shape, graph.node(graph.output).shape)
