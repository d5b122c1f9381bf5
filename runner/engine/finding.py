"""What a verification says, and how a counterexample becomes `sat`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.contract.vocabulary import Cause, Verdict
from runner.engine.layout.group import Group
from runner.engine.targets import Candidate
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.counterexample import printed, write_counterexample
from runner.problem.property.inside import CHECKER_TOLERANCE, excess_in, outside
from runner.problem.property.model import Property

MESSAGE_BYTES = 400


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

    The first that holds is written to `counterexample`: in the network's own input type, as it is
    printed, it lies in the box within the tolerance of inputs, by exact arithmetic and by
    VNN-COMP's rule, and its outputs are finite and unsafe with tolerance 0.

    `outside` tells of a point that VNN-COMP's rule alone lets in, as it rounds limits: then
    neither `sat` nor `unsat` may be said, unless another point is confirmed.
    """

    def __init__(
        self, instance: Property, network: Path, counterexample: Path, group: Group
    ) -> None:
        self._property = instance
        self._network = network
        self._counterexample = counterexample
        self._group = group
        self._runtime: OnnxRuntime | None = None
        self._held: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None
        self.rejected = 0
        self.confirmed = False
        self.outside = ""

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

    def replay(self, points: Tensor, outputs: int) -> Tensor:
        """Outputs [points, outputs] of flat points on ONNX Runtime, on every rank, in float64."""
        found = points.new_empty((len(points), outputs), dtype=torch.float64)
        if self._group.rank == 0:
            runs = [self._runs(point) for point in points.cpu().numpy()]
            found.copy_(torch.from_numpy(np.stack(runs)))
        return self._group.broadcast(found, 0)

    def _runs(self, point: NDArray[np.floating]) -> NDArray[np.float64]:
        if self._runtime is None:
            self._runtime = OnnxRuntime(self._network)
        return self._runtime.run(point).astype(np.float64)

    def share_outside(self) -> str:
        """All ranks together: `outside` of the first rank that has one, on every rank."""
        room = torch.zeros(MESSAGE_BYTES, dtype=torch.uint8)
        said = self.outside.encode()[:MESSAGE_BYTES]
        room[: len(said)] = torch.tensor(list(said), dtype=torch.uint8)
        rows = self._group.all_gather(room).tolist()
        told = (bytes(row).rstrip(b"\0").decode(errors="ignore") for row in rows)
        self.outside = next(filter(None, told), "")
        return self.outside

    def _holds(self, candidate: Candidate) -> bool:
        values, target = candidate
        if self._runtime is None:
            self._runtime = OnnxRuntime(self._network)
        dtype = self._runtime.dtype
        with np.errstate(over="ignore"):
            point = np.asarray(values).astype(dtype)
        outputs = self._runtime.run(point)
        if not (np.all(np.isfinite(point)) and np.all(np.isfinite(outputs))):
            return False
        case = self._property.cases[target.case]
        if not case.unsafe[target.disjunct].holds(outputs):
            return False
        found = outside(case, printed(point))
        accepted = excess_in(dtype, case, point.astype(np.float64)) <= CHECKER_TOLERANCE
        if found and not found.tolerated:
            if accepted:
                name = self._property.input_name(found.index)
                self.outside = f"{found.said(name)}, and in the box only as {dtype.__name__} rounds"
            return False
        if accepted:
            self._held = point, outputs
        return accepted
