"""Cross-entropy on the training points."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from runner.training.methods.method import TrainingMethod, plain_loss
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class Standard(TrainingMethod):
    """Has no options."""

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        del stage
        return plain_loss(network, batch)
