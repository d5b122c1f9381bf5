"""What a verification says, and how a counterexample becomes `sat`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.network.runtime import OnnxRuntime
from runner.parallel.group import Group
from runner.property.counterexample import write_counterexample
from runner.property.model import Property
from runner.verify.attack import Candidate
from runner.vocabulary import Cause, Verdict


@dataclass(frozen=True)
class Finding:
    """`lower_bound`: the least margin over cases and disjuncts, None when nothing was bounded."""

    verdict: Verdict
    cause: Cause
    method: str
    lower_bound: float | None = None
    message: str = ""


class Confirmation:
    """Rank 0 replays candidates on ONNX Runtime with the original file; all ranks hear the answer.

    The first that holds, with output tolerance 0, is written to `counterexample`.
    """

    def __init__(
        self, instance: Property, network: Path, counterexample: Path, group: Group
    ) -> None:
        self._property = instance
        self._network = network
        self._counterexample = counterexample
        self._group = group
        self._runtime: OnnxRuntime | None = None
        self.rejected = 0
        self.confirmed = False

    def __call__(self, candidate: Candidate) -> bool:
        holds = self._holds(candidate) if self._group.rank == 0 else False
        self.confirmed = self._group.decide(holds)
        if not self.confirmed:
            self.rejected += 1
        return self.confirmed

    def _holds(self, candidate: Candidate) -> bool:
        point, target = candidate
        if self._runtime is None:
            self._runtime = OnnxRuntime(self._network)
        outputs = self._runtime.run(point)
        if not self._property.cases[target.case].unsafe[target.disjunct].holds(outputs):
            return False
        write_counterexample(self._counterexample, point, outputs)
        return True
