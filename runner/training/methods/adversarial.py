"""Adversarial training (Madry et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from runner.training.methods.method import TrainingMethod, attacked_loss
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class Adversarial(TrainingMethod):
    """Cross-entropy at what PGD finds. Has no options."""

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        return attacked_loss(network, batch, stage)
