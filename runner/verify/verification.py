"""One instance: attack, then bounds, then branch and bound or a longer attack on what is open.

A fixed workload is bounds and branch and bound alone, over everything, and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from runner.measure.probe import Probe
from runner.property.model import Property
from runner.verify.attack import Attack, AttackSettings, Target
from runner.verify.complete import Complete, few_inputs, tightest_bounds
from runner.verify.deadline import Deadline, DeadlineReached
from runner.verify.engines import Bounding, VerificationEngine
from runner.verify.finding import Confirmation, Finding
from runner.verify.incomplete import OpenCase
from runner.verify.search import Outcome, Progress
from runner.vocabulary import BOUNDS, Cause, Method, Phase, Verdict
from runner.workload import Workload

FIRST_ATTACK = AttackSettings(restarts=10, steps=15)
LAST_ATTACK = AttackSettings(restarts=20, steps=60)
FIRST_ATTACK_ROUNDS = 1
LAST_ATTACK_ROUNDS = 4
# No attack round starts after these shares of the time.
FIRST_ATTACK_SHARE = 0.15
LAST_ATTACK_SHARE = 0.7


@dataclass(frozen=True)
class Verification:
    """The phases over one loaded network."""

    engine: VerificationEngine
    instance: Property
    method: Method
    seed: int
    device: torch.device
    deadline: Deadline
    confirmation: Confirmation
    probe: Probe
    progress: Progress
    workload: Workload | None = None

    def run(self) -> Finding:
        """Never raises DeadlineReached: that is a finding, `timeout`."""
        bounding = self.engine.bounding(self.instance, self.deadline)
        try:
            return self._phases(bounding) if self.workload is None else self._fixed(bounding)
        except DeadlineReached:
            return self._finding(Verdict.TIMEOUT, Cause.DEADLINE, bounding)

    def _phases(self, bounding: Bounding) -> Finding:
        attack = Attack(
            self.engine,
            self.instance,
            self.device,
            self.seed,
            self.probe,
            self.deadline.check,
            self.confirmation,
        )
        with self.probe.phase(Phase.ATTACK):
            targets = [
                Target(index, disjunct)
                for index, case in enumerate(self.instance.cases)
                for disjunct in range(len(case.unsafe))
            ]
            if self._attack(attack, targets, FIRST_ATTACK, FIRST_ATTACK_ROUNDS, FIRST_ATTACK_SHARE):
                return Finding(Verdict.SAT, Cause.NONE, "attack")
        with self.probe.phase(Phase.INCOMPLETE):
            self._bound(bounding)
        if not bounding.open_targets:
            return self._finding(Verdict.UNSAT, Cause.NONE, bounding)
        cases = bounding.open_cases if self.method is Method.COMPLETE else []
        with self.probe.phase(Phase.ATTACK):
            rounds, open_targets = _last_rounds(cases), bounding.open_targets
            if self._attack(attack, open_targets, LAST_ATTACK, rounds, LAST_ATTACK_SHARE):
                return Finding(Verdict.SAT, Cause.NONE, "attack")
        if cases:
            with self.probe.phase(Phase.COMPLETE):
                return self._complete(bounding)
        return self._finding(Verdict.UNKNOWN, Cause.INCOMPLETE, bounding)

    def _fixed(self, bounding: Bounding) -> Finding:
        """All bounds and the workload, from all disjuncts: what is proved on the way stays open."""
        cases = bounding.open_cases
        with self.probe.phase(Phase.INCOMPLETE):
            for method in BOUNDS:
                bounding.run(method)
                for case in cases:
                    case.progress.open = torch.ones_like(case.progress.open)
        with self.probe.phase(Phase.COMPLETE):
            self._searches().run(cases)
        return self._finding(Verdict.UNKNOWN, Cause.FIXED_WORKLOAD, bounding)

    def _bound(self, bounding: Bounding) -> None:
        if self.method is Method.COMPLETE:
            bounding.run(Method.CROWN)
            bounding.run(tightest_bounds(bounding.open_cases))
        else:
            bounding.run(self.method)

    def _complete(self, bounding: Bounding) -> Finding:
        outcome = self._searches().run(bounding.open_cases)
        if outcome is Outcome.PROVED:
            return self._finding(Verdict.UNSAT, Cause.NONE, bounding)
        if outcome is Outcome.COUNTEREXAMPLE:
            return Finding(Verdict.SAT, Cause.NONE, self.progress.method)
        return self._finding(Verdict.UNKNOWN, Cause.INCOMPLETE, bounding)

    def _searches(self) -> Complete:
        return Complete(
            self.instance,
            self.device,
            self.seed,
            self.probe,
            self.deadline,
            self.engine.sharing(self.deadline, self.confirmation),
            self.progress,
            self.workload,
        )

    def _attack(
        self,
        attack: Attack,
        targets: list[Target],
        settings: AttackSettings,
        rounds: int,
        share: float,
    ) -> bool:
        return any(
            not self.deadline.passed(share) and attack.search(targets, settings)
            for _ in range(rounds)
        )

    def _finding(self, verdict: Verdict, cause: Cause, bounding: Bounding) -> Finding:
        """A candidate that ONNX Runtime rejected is worth telling where nothing is proved."""
        message = self.instance.empty
        if verdict is not Verdict.UNSAT and self.confirmation.rejected:
            cause = Cause.INVALID_COUNTEREXAMPLE if verdict is Verdict.UNKNOWN else cause
            message = f"ONNX Runtime rejected {self.confirmation.rejected} candidate(s)"
        bound = bounding.lower_bound
        method = self.progress.method or bounding.method
        return Finding(verdict, cause, method, None if bound == -torch.inf else bound, message)


def _last_rounds(cases: list[OpenCase]) -> int:
    """Branch and bound attacks as well: an input split in every box, so it needs none before."""
    if cases:
        return 0 if all(map(few_inputs, cases)) else 1
    return LAST_ATTACK_ROUNDS
