"""Interval bound propagation (Gowal et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from runner.training.differentiable import Bound
from runner.training.methods.method import TrainingMethod, plain_loss, robust_loss
from runner.training.ranges import within
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class Ibp(TrainingMethod):
    """`clean`: weight of the plain cross-entropy at the end; it starts at 1."""

    clean: float = 0.5

    def __post_init__(self) -> None:
        within("clean", self.clean, 0, 1)

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        clean = 1 - stage.ramp * (1 - self.clean)
        robust = robust_loss(network, batch, stage.grown, Bound.IBP)
        return clean * plain_loss(network, batch) + (1 - clean) * robust
