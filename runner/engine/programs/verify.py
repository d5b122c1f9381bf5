"""What a rank of a gang runs: prepare a network, or verify one instance under a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributed.distributed_c10d import BackendConfig

from runner.contract.question import Question, Report
from runner.contract.strategy import Engine, Strategy
from runner.contract.vocabulary import Cause, EnginePart, Phase, Verdict
from runner.contract.wire import question_from_json, question_to_json, report_to_json
from runner.engine.bounds.budget import Budget, budget_of
from runner.engine.bounds.tagging import Tagger
from runner.engine.driver_engine import DriverEngine
from runner.engine.engines import VerificationEngine
from runner.engine.finding import Confirmation, Finding
from runner.engine.layout.devices import GLOO
from runner.engine.layout.group import Group
from runner.engine.lirpa_engine import LirpaEngine
from runner.engine.network.graph import Graph
from runner.engine.network.graph_replay import box_points
from runner.engine.network.load import prepare
from runner.engine.network.prepared import read_graph
from runner.engine.programs.properties import check_fit, fit_property, property_of
from runner.engine.programs.rank import Rank, as_rank
from runner.engine.programs.same_gang import world_for
from runner.engine.verification import Verification


def get_ready() -> None:
    """What every rank would do first, done once for all that are forked later."""
    some = Question("", "", "", Strategy("some"), ranks=1, timeout_s=1.0)
    # cattrs writes its functions when they are first needed.
    question_from_json(question_to_json(some))
    report_to_json(Report(rank=0, verdict=Verdict.UNKNOWN))
    BackendConfig(GLOO)  # looks for plugins in whatever is installed


def prepare_target(payload: dict[str, Any]) -> dict[str, Any]:
    """Converts `network` to `prepared` and checks that `property`, unless it is empty, fits it;
    where `fitted` is given, it is left there for the ranks.

    In the property's box the network is held against ONNX Runtime. Raises InstanceError for
    whatever is wrong with either.
    """
    network, prepared, source = (Path(payload[key]) for key in ("network", "prepared", "property"))

    def points(graph: Graph) -> Sequence[NDArray[np.floating]]:
        if not payload["property"]:
            return ()
        instance = fit_property(source, payload.get("fitted", ""), graph, network)
        return box_points(instance)

    graph = prepare(network, prepared, points)
    return {"inputs": graph.input.size, "outputs": graph.node(graph.output).size}


def verify_target(payload: dict[str, Any]) -> dict[str, Any]:
    """A question as JSON in, this rank's report out."""
    return report_to_json(verify_question(question_from_json(payload)))


def verify_question(question: Question) -> Report:
    """Verifies one instance; see `as_rank`."""
    if question.strategy.engine is Engine.NULL:
        rank = world_for(question).rank
        return Report(rank, Verdict.UNKNOWN, Cause.INCOMPLETE, method="null")
    return as_rank(question, lambda rank: verified(question, rank))


def verified(question: Question, rank: Rank) -> Finding:
    """Loads network and property, and verifies."""
    device, probe, group = rank.device, rank.probe, rank.group
    network, prepared = Path(question.network), Path(question.prepared)
    with probe.phase(Phase.LOAD):
        instance = property_of(question)
        if question.prepared and not question.fitted:
            check_fit(instance, read_graph(prepared), question.property, network)
        budget = budget_of(device, question.work_bytes)
        engine = engine_for(
            question.strategy, network, prepared, group, device, probe, budget, question.without
        )
        rank.weight_bytes = engine.weight_bytes
    return Verification(
        engine,
        instance,
        question.method,
        question.seed,
        device,
        rank.deadline,
        Confirmation(instance, network, Path(question.counterexample), group),
        probe,
        rank.progress,
        question.workload,
        question.attack,
        question.without,
    ).run()


def engine_for(
    strategy: Strategy,
    network: Path,
    prepared: Path,
    group: Group,
    device: torch.device,
    tag: Tagger,
    budget: Budget | None = None,
    without: AbstractSet[EnginePart] = frozenset(),
) -> VerificationEngine:
    """`budget`: what suits the device where none is given; auto_LiRPA knows none, and no parts."""
    if strategy.engine is Engine.LIRPA:
        return LirpaEngine(network, prepared, device, tag)
    return DriverEngine(prepared, strategy, group, device, tag, budget, without)
