"""What a verification says, and how a counterexample becomes `sat`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
    """Replays candidates on ONNX Runtime with the original file: on rank 0, and all ranks hear it.

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
        self._held: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self.rejected = 0
        self.confirmed = False

    def __call__(self, candidate: Candidate) -> bool:
        holds = self._holds(candidate) if self._group.rank == 0 else False
        self.confirmed = self._group.decide(holds)
        self.settle(writer=0)
        if not self.confirmed:
            self.rejected += 1
        return self.confirmed

    def alone(self, candidate: Candidate) -> bool:
        """This rank replays, of itself; nothing is written before the ranks `settle` it."""
        holds = self._holds(candidate)
        self.confirmed |= holds
        self.rejected += not holds
        return holds

    def settle(self, writer: int) -> None:
        """The counterexample of rank `writer`, if it has one, is written, and no other."""
        if self._held is not None and self._group.rank == writer:
            write_counterexample(self._counterexample, *self._held)

    def _holds(self, candidate: Candidate) -> bool:
        point, target = candidate
        if self._runtime is None:
            self._runtime = OnnxRuntime(self._network)
        outputs = self._runtime.run(point)
        if not self._property.cases[target.case].unsafe[target.disjunct].holds(outputs):
            return False
        self._held = point, outputs
        return True
