"""One instance: attack, then bounds, then branch and bound or a longer attack on what is open.

Before anything is proved, ONNX Runtime is compared with float64 at points of the boxes: margins
that it may overturn decide nothing (runner.engine.agreement).

A fixed workload is bounds and branch and bound alone, over everything, and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from runner.contract.vocabulary import BOUNDS, AttackKind, Cause, EnginePart, Method, Phase, Verdict
from runner.contract.workload import Workload
from runner.engine.agreement import SAFETY, Agreement, Nearest, compare
from runner.engine.attack.pgd import Attack, AttackPart, AttackSettings
from runner.engine.attack.shared_attack import SharedAttack
from runner.engine.clock import Deadline, DeadlineReached
from runner.engine.engines import Bounding, VerificationEngine
from runner.engine.finding import Confirmation, Finding
from runner.engine.measure.probe import Probe
from runner.engine.search.cases import OpenCase
from runner.engine.search.complete import (
    Complete,
    few_inputs,
    halved_together,
    tightest_bounds,
)
from runner.engine.search.search import Progress, SearchEnd
from runner.engine.targets import Target, targets_of
from runner.problem.property.model import Property

FIRST_ATTACK = AttackSettings(restarts=10, steps=15)
LAST_ATTACK = AttackSettings(restarts=20, steps=60)
INTERVAL_ATTACK = AttackSettings(restarts=20, steps=20, descents=3)
FIRST_ATTACK_ROUNDS = 1
# Of more targets, so many are attacked at first, spread over all, from one start each: thousands of
# small boxes are bounded in the time, and those that stay open are attacked again.
FIRST_TARGETS = 200
LAST_ATTACK_ROUNDS = 4
# No attack round starts after these shares of the time, and one that runs ends so much later:
# bounds and searches have a part of it whatever a pass through the network costs.
FIRST_SHARE = 0.15
LAST_SHARE = 0.7
RUNNING_SHARE = 0.15
# Points that are tried one by one, as all of a kind, end at this share.
WHOLE_SHARE = 0.5


@dataclass
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
    attack: AttackKind = AttackKind.PGD
    without: frozenset[EnginePart] = frozenset()
    _bounding: Bounding | None = None
    _aside: dict[Target, Nearest] = field(default_factory=dict)
    _step: str = "start"
    _least_room: float = 0.0

    def run(self) -> Finding:
        """Never raises DeadlineReached: that is a finding, `timeout`."""
        try:
            return self._phases() if self.workload is None else self._fixed()
        except DeadlineReached:
            return self._finding(Verdict.TIMEOUT, Cause.DEADLINE)

    def _phases(self) -> Finding:
        targets = targets_of(self.instance)
        if not targets:
            return Finding(Verdict.UNSAT, Cause.NONE, "", None, self.instance.empty)
        attack = self._attack()
        with self.probe.phase(Phase.ATTACK):
            self._step = "attack"
            if self._attacked(
                attack, *_first(targets), FIRST_ATTACK_ROUNDS, FIRST_SHARE
            ) or self._enumerated(attack, targets):
                return Finding(Verdict.SAT, Cause.NONE, "attack")
        with self.probe.phase(Phase.INCOMPLETE):
            self._step = "comparison with ONNX Runtime"
            agreement = self._compared(attack)
            self._least_room = min(nearest.room for nearest in agreement.nearest.values())
            self._step = "bounds"
            if any(self.confirmation(candidate) for candidate in agreement.reached):
                return Finding(Verdict.SAT, Cause.NONE, "attack")
            bounding = self.engine.bounding(self.instance, self.deadline, agreement.room)
            self._bounding = bounding
            self._set_aside(agreement, bounding)
            self._bound(bounding)
        if not bounding.open_targets and not self._aside:
            return self._proved()
        cases = bounding.open_cases if self.method is Method.COMPLETE else []
        with self.probe.phase(Phase.ATTACK):
            self._step = "last attack"
            attack.precise = bool(self._aside)
            rounds = LAST_ATTACK_ROUNDS if self._aside else _last_rounds(cases)
            rest = [*self._aside, *bounding.open_targets]
            last = INTERVAL_ATTACK if self.attack is AttackKind.INTERVAL else LAST_ATTACK
            if self._attacked(attack, rest, last, rounds, LAST_SHARE):
                return Finding(Verdict.SAT, Cause.NONE, "attack")
        if cases:
            with self.probe.phase(Phase.COMPLETE):
                self._step = "branch and bound"
                outcome = self._searches().run(cases)
                if outcome is SearchEnd.COUNTEREXAMPLE:
                    return Finding(Verdict.SAT, Cause.NONE, self.progress.method)
                if outcome is SearchEnd.PROVED and not self._aside:
                    return self._proved()
        return self._finding(Verdict.UNKNOWN, Cause.INCOMPLETE)

    def _fixed(self) -> Finding:
        """All bounds and the workload, from all disjuncts: what is proved on the way stays open."""
        self._bounding = bounding = self.engine.bounding(self.instance, self.deadline)
        cases = bounding.open_cases
        with self.probe.phase(Phase.INCOMPLETE):
            for method in BOUNDS:
                bounding.run(method)
                for case in cases:
                    case.progress.open = torch.ones_like(case.progress.open)
        with self.probe.phase(Phase.COMPLETE):
            self._searches().run(cases)
        return self._finding(Verdict.UNKNOWN, Cause.FIXED_WORKLOAD)

    def _compared(self, attack: SharedAttack) -> Agreement:
        """ONNX Runtime beside float64, which every rank hears of."""
        return compare(
            self.engine,
            self.instance,
            attack.ends,
            self.confirmation.replay,
            self.engine.dtype,
            self.deadline.check,
        )

    def _set_aside(self, agreement: Agreement, bounding: Bounding) -> None:
        """Targets that no proof would decide, as a point is too near. Where the point is on the
        very limit and the limit excludes itself, exact arithmetic may still decide.
        """
        for target, nearest in agreement.nearest.items():
            if nearest.decides:
                continue
            region = self.instance.cases[target.case].unsafe[target.disjunct]
            strict = bool(region.strict.any()) and nearest.room == 0
            strict &= EnginePart.EXACT not in self.without
            if not (strict and self.engine.excluded_exactly(self.instance, target)):
                self._aside[target] = nearest
            bounding.close(target)

    def _bound(self, bounding: Bounding) -> None:
        if self.method is not Method.COMPLETE:
            bounding.run(self.method)
            return
        bounding.enumerate_cells()
        if not halved_together(bounding.open_cases):
            splits = all(map(few_inputs, bounding.open_cases))
            bounding.run(Method.CROWN, splits=splits)
            bounding.run(tightest_bounds(bounding.open_cases), searched=True)

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

    def _attack(self) -> SharedAttack:
        sharing = self.engine.attacking(self.deadline, self.confirmation)
        by_intervals = self.attack is AttackKind.INTERVAL
        attack = Attack(
            self.engine,
            self.instance,
            self.device,
            self.seed,
            self.probe,
            sharing.checkpoint,
            sharing.confirm,
            self.engine.dtype,
            self.engine.guide(sharing.checkpoint) if by_intervals else None,
            AttackPart(sharing.rank, sharing.ranks),
        )
        return SharedAttack(attack, sharing)

    def _attacked(
        self,
        attack: SharedAttack,
        targets: list[Target],
        settings: AttackSettings,
        rounds: int,
        share: float,
    ) -> bool:
        until = share + RUNNING_SHARE
        return any(
            not self.deadline.passed(share) and attack.search(targets, settings, until)
            for _ in range(rounds)
        )

    def _enumerated(self, attack: SharedAttack, targets: list[Target]) -> bool:
        """Whether one of finitely many points is a counterexample."""
        if EnginePart.WHOLE in self.without:
            return False
        return attack.search_whole(targets, WHOLE_SHARE)

    def _proved(self) -> Finding:
        """`unsat`, unless VNN-COMP's checker would accept a point that lies outside of the box."""
        if self.confirmation.share_outside():
            return self._finding(Verdict.UNKNOWN, Cause.OUTSIDE_BOX)
        return self._finding(Verdict.UNSAT, Cause.NONE)

    def _finding(self, verdict: Verdict, cause: Cause) -> Finding:
        """With how far it came and what stood in the way, where nothing is decided."""
        bounding = self._bounding
        bound = bounding.lower_bound if bounding is not None else -torch.inf
        method = self.progress.method or (str(bounding.method) if bounding is not None else "")
        reasons = []
        if verdict is not Verdict.UNSAT:
            # Margins are counted from where ONNX Runtime's rounding ends.
            room = self._least_room
            nearly = not self._aside and -room < bound <= 0
            if verdict is Verdict.UNKNOWN and cause is Cause.INCOMPLETE and (self._aside or nearly):
                cause = Cause.WITHIN_ROUNDING
            if nearly:
                reasons.append(
                    f"a margin of {bound + room:.3g} in real arithmetic is less than {SAFETY:g} "
                    f"times what ONNX Runtime differs by, {room / SAFETY:.3g}"
                )
            if self.confirmation.share_outside():
                cause = cause if verdict is Verdict.TIMEOUT else Cause.OUTSIDE_BOX
                reasons.append(self.confirmation.outside)
            reasons += [str(nearest) for nearest in list(self._aside.values())[:1]]
            reasons.append(self._progress_words(bound))
            if self.confirmation.rejected:
                reasons.append(f"ONNX Runtime rejected {self.confirmation.rejected} candidate(s)")
        lower = None if bound == -torch.inf else bound
        return Finding(verdict, cause, method, lower, "; ".join(filter(None, reasons)))

    def _progress_words(self, bound: float) -> str:
        words = f"came to: {self._step}"
        if self._bounding is not None and self._bounding.progress:
            words += f", {self._bounding.progress}"
        if self.progress.domains:
            words += f", {self.progress.domains} sub-problems"
        if self._bounding is not None and bound > -torch.inf:
            count = len(self._bounding.open_targets)
            words += f", least margin {bound:.4g}, {count} disjunct(s) open"
        return words


def _first(targets: list[Target]) -> tuple[list[Target], AttackSettings]:
    """What is attacked before anything is bounded, and how."""
    if len(targets) <= FIRST_TARGETS:
        return targets, FIRST_ATTACK
    spread = targets[:: -(-len(targets) // FIRST_TARGETS)]
    return spread, replace(FIRST_ATTACK, restarts=1)


def _last_rounds(cases: list[OpenCase]) -> int:
    """Branch and bound attacks as well: an input split in every box, so it needs none before."""
    if cases:
        return 0 if all(map(few_inputs, cases)) else 1
    return LAST_ATTACK_ROUNDS
