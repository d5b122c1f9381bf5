"""What a rank of an experiment runs: the bounds of one instance by one method, proved or not.

Unlike a verification there is no attack, no cheaper method first and no early end, so that every
strategy does the same work. The first case of a property is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from runner.contract.question import Question
from runner.contract.strategy import Engine
from runner.contract.vocabulary import Cause, Memory, Method, Phase, Verdict
from runner.contract.wire import question_from_json, report_to_json
from runner.engine.bounds.budget import budget_of
from runner.engine.bounds.rows import Bound, Rows, row_counts
from runner.engine.driver_engine import DriverEngine
from runner.engine.finding import Finding
from runner.engine.layout.traffic import formula_bytes
from runner.engine.network.blocks import cut_weights, weights_of
from runner.engine.network.lirpa import lirpa_run
from runner.engine.network.load import load_module
from runner.engine.network.prepared import PreparedWeights
from runner.engine.programs.properties import property_of
from runner.engine.programs.rank import Rank, as_rank
from runner.engine.specs import Specs, box_around


@dataclass(frozen=True)
class Found:
    """Bounds by name, of the specs [S] among them; `facts` are written beside them."""

    tensors: dict[str, Tensor]
    margin: float
    weight_bytes: int
    facts: Mapping[str, float] = field(default_factory=dict)


def bounds_target(payload: dict[str, Any]) -> dict[str, Any]:
    """A question as JSON in, this rank's report out; rank 0 writes the bounds where it says."""
    question = question_from_json(payload)
    kept: list[Found] = []
    report = as_rank(question, lambda rank: _bounds(question, rank, kept))
    if report.rank == 0:
        for found in kept:  # once nothing is measured any more
            _write(found, question.bounds)
    return report_to_json(report)


def _bounds(question: Question, rank: Rank, kept: list[Found]) -> Finding:
    bounded = _lirpa if question.strategy.engine is Engine.LIRPA else _driver
    found = bounded(question, rank)
    rank.weight_bytes = found.weight_bytes
    kept.append(found)
    return Finding(Verdict.UNKNOWN, Cause.INCOMPLETE, str(question.method), found.margin)


def _write(found: Found, path: str) -> None:
    # Metadata of safetensors is text.
    facts = {name: json.dumps(value) for name, value in found.facts.items()}
    # Copies: safetensors refuses tensors that share memory.
    tensors = {name: tensor.cpu().clone() for name, tensor in found.tensors.items()}
    save_file(tensors, path, facts)


def _driver(question: Question, rank: Rank) -> Found:
    strategy, group, device, probe = question.strategy, rank.group, rank.device, rank.probe
    with probe.phase(Phase.LOAD):
        case = property_of(question).cases[0]
        budget = budget_of(device, question.work_bytes)
        engine = DriverEngine(Path(question.prepared), strategy, group, device, probe, budget)
        box, specs = box_around(case, engine.input_shape, device), Specs.of(case, device)
    blocks: list[list[int]] = []
    with probe.phase(Phase.INCOMPLETE):
        propagator = engine.propagator(
            question.method, rank.deadline, lambda rows: _WatchedRows(rows, blocks)
        )
        bounds = propagator.bound(box)
        lower = propagator.spec_bounds(bounds, specs.rows.float())[:, 0]
    tensors = {"specs": lower}
    for name, interval in bounds.intervals.items():
        tensors |= {f"{name}.lower": interval.lower, f"{name}.upper": interval.upper}
    blocks_of: dict[str, list[int]] = {}
    for cut in cut_weights(
        weights_of(engine.graph, PreparedWeights(Path(question.prepared)).shape)
    ):
        blocks_of.setdefault(cut.weight, []).append(cut.bytes)
    facts = {
        "rows": sum(sum(counts) for counts in blocks),
        "formula_bytes": formula_bytes(
            propagator.network,
            blocks_of,
            strategy,
            group.size,
            propagator.settings,
            blocks,
        ),
    }
    return Found(tensors, _margin(specs, lower), engine.weight_bytes, facts)


def _lirpa(question: Question, rank: Rank) -> Found:
    device, probe = rank.device, rank.probe
    with probe.phase(Phase.LOAD):
        case = property_of(question).cases[0]
        with probe.kind(Memory.WEIGHTS):
            loaded = load_module(Path(question.network))
            module = loaded.module.to(device)
        box, specs = box_around(case, loaded.input_shape, device), Specs.of(case, device)
    with probe.phase(Phase.INCOMPLETE):
        rows = specs.rows.float()
        run = lirpa_run(module, box.lower[0], box.upper[0], rows, question.method, question.network)
    weights = sum(value.nbytes for value in module.state_dict().values())
    facts = {"alpha_bytes": run.alpha_bytes} if question.method is Method.ALPHA_CROWN else {}
    return Found({"specs": run.lower}, _margin(specs, run.lower), weights, facts)


def _margin(specs: Specs, lower: Tensor) -> float:
    return float(specs.margins(lower.double()).min())


class _WatchedRows:
    """Notes how many rows each block of each start node had; changes nothing."""

    def __init__(self, rows: Rows, blocks: list[list[int]]) -> None:
        self._rows = rows
        self._blocks = blocks

    def share(self, blocks: Sequence[Tensor], like: Tensor, bound: Bound) -> list[Tensor]:
        self._blocks.append(row_counts(blocks))
        return self._rows.share(blocks, like, bound)

    def finished(self, done: bool) -> bool:
        return self._rows.finished(done)
