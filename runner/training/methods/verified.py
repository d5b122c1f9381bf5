"""Verifiably robust training on every point: what MixTrain (arXiv 1811.02625) compares with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from runner.training.differentiable import Bound
from runner.training.methods.method import TrainingMethod, plain_loss, robust_loss
from runner.training.ranges import within
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class VerifiedTraining(TrainingMethod):
    """The mixed loss of `mixtrain` with every point of the batch bounded and a fixed mixing.

    `mixing`: weight of the robust loss once the radius has grown. The paper's formula could not be
    read: this is a definition of our own.
    """

    mixing: float = 0.5

    def __post_init__(self) -> None:
        within("mixing", self.mixing, 0, 1)

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        robust = robust_loss(network, batch, stage.grown, Bound.CROWN_IBP)
        return (1 - self.mixing) * plain_loss(network, batch) + self.mixing * robust
