"""What a rank of the experiment on attacks runs: one attack on one instance until its budget is
spent, whatever it finds.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.contract.vocabulary import Cause, Phase, Verdict
from runner.contract.wire import question_from_json, report_to_json
from runner.engine.attack.interval_steps import IntervalSteps
from runner.engine.attack.pgd import Attack, AttackSettings, Goal
from runner.engine.attack.region import Region
from runner.engine.bounds.boxes import batch_boxes
from runner.engine.bounds.budget import budget_of
from runner.engine.driver_engine import DriverEngine
from runner.engine.finding import Confirmation, Finding
from runner.engine.programs.properties import property_of
from runner.engine.programs.rank import Rank, as_rank
from runner.engine.targets import Candidate, targets_of
from runner.problem.property.model import Property

RESTARTS, STEPS, DESCENTS = 20, 40, 3


@dataclass(frozen=True)
class NamedAttack:
    """`guided`: by intervals between descents."""

    settings: AttackSettings
    guided: bool = False


ATTACKS = {
    "pgd": NamedAttack(AttackSettings(RESTARTS, STEPS, 0, goal=Goal.CROSS_ENTROPY)),
    "cw": NamedAttack(AttackSettings(RESTARTS, STEPS, 0, goal=Goal.NEAREST)),
    "odi": NamedAttack(AttackSettings(RESTARTS, STEPS)),
    "interval": NamedAttack(
        AttackSettings(RESTARTS, STEPS // DESCENTS, 0, goal=Goal.CROSS_ENTROPY, descents=DESCENTS),
        guided=True,
    ),
}


@dataclass(frozen=True)
class Budgeted:
    """What an attack may spend; None: without end."""

    cpu_s: float | None
    passes: int | None


class Spent(Exception):
    """The budget is."""


@dataclass
class Attacked:
    """What came of an attack. `nearest`: the least that any point missed a disjunct by, below 0
    inside of it. `found_s`: processor time until the first counterexample that ONNX Runtime
    confirms. `passes`: of points, or rows of a bound, through the network and back.
    """

    nearest: float = math.inf
    found_s: float | None = None
    cpu_s: float = 0.0
    passes: int = 0


def attacks_target(payload: dict[str, Any]) -> dict[str, Any]:
    """`question`, `attack` (of ATTACKS), `cpu_s` and `passes` in; a report with `attacked` out."""
    question = question_from_json(payload["question"])
    found = Attacked()

    def work(rank: Rank) -> Finding:
        with rank.probe.phase(Phase.LOAD):
            instance = property_of(question)
            budget = budget_of(rank.device, question.work_bytes)
            engine = DriverEngine(
                Path(question.prepared),
                question.strategy,
                rank.group,
                rank.device,
                rank.probe,
                budget,
            )
        confirm = Confirmation(
            instance, Path(question.network), Path(question.counterexample), rank.group
        )
        with rank.probe.phase(Phase.ATTACK):
            spending = _Spending(engine, instance, confirm, found)
            most = Budgeted(payload["cpu_s"], payload["passes"])
            spending.spend(ATTACKS[payload["attack"]], rank, question.seed, most)
        return Finding(Verdict.UNKNOWN, Cause.INCOMPLETE, payload["attack"])

    return {**report_to_json(as_rank(question, work)), "attacked": asdict(found)}


class _Spending:
    """A network that counts what is asked of it, and an attack on it until the budget is spent."""

    def __init__(
        self, engine: DriverEngine, instance: Property, confirm: Confirmation, found: Attacked
    ) -> None:
        self.input_shape, self.neurons = engine.input_shape, engine.neurons
        self.budget = engine.budget
        self._engine = engine
        self._instance = instance
        self._confirm = confirm
        self._found = found
        self._boxes = engine.boxes(self._check)
        self._points = 0
        self._began, self._most_s, self._most = time.process_time(), math.inf, math.inf
        regions = [region for case in instance.cases for region in case.unsafe]
        self._unsafe = Region.of(regions, torch.device("cpu"), engine.dtype)

    def spend(self, named: NamedAttack, rank: Rank, seed: int, most: Budgeted) -> None:
        """Attacks again and again, from other starts."""
        self._began = time.process_time()
        self._most_s, self._most = most.cpu_s or math.inf, most.passes or math.inf
        attack = Attack(
            self,
            self._instance,
            rank.device,
            seed,
            rank.probe,
            self._check,
            self._confirmed,
            self._engine.dtype,
            self._guide(rank) if named.guided else None,
        )
        targets = targets_of(self._instance)
        try:
            while True:
                attack.search(targets, named.settings)
        except Spent:
            self._found.cpu_s, self._found.passes = self._spent_s, self._passes

    def forward(self, x: Tensor) -> Tensor:
        self._points += len(x)
        outputs = self._engine.forward(x)
        with torch.no_grad():
            points = outputs.detach().cpu().expand(len(self._unsafe.rhs), -1, -1)
            worst = self._unsafe.worst(self._unsafe.excess(points))
        self._found.nearest = min(self._found.nearest, float(worst.min()))
        return outputs

    def exact(self, x: Tensor) -> Tensor:
        return self._engine.exact(x)

    def _guide(self, rank: Rank) -> IntervalSteps:
        return IntervalSteps(self._boxes, batch_boxes(self._engine.graph, self.budget), rank.probe)

    @property
    def _spent_s(self) -> float:
        return time.process_time() - self._began

    @property
    def _passes(self) -> int:
        # A row does not always go all the way.
        return self._points + self._boxes.work // (len(self._engine.graph.nodes) - 1)

    def _check(self) -> None:
        if self._spent_s > self._most_s or self._passes > self._most:
            raise Spent

    def _confirmed(self, candidate: Candidate) -> bool:
        """Notes the first; the search goes on, as no budget is saved."""
        if self._found.found_s is None and self._confirm(candidate):
            self._found.found_s = self._spent_s
        return False
