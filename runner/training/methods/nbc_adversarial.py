"""Neuron behaviour consistency with adversarial training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from runner.training.methods.method import TrainingMethod, attacked_loss
from runner.training.methods.nbc import nbc_loss
from runner.training.ranges import within
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class NbcAdversarial(TrainingMethod):
    """Cross-entropy at what PGD finds, and `weight` times the inconsistency."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        within("weight", self.weight, 0, 1e3)

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        attacked = attacked_loss(network, batch, stage)
        return attacked + self.weight * nbc_loss(network, batch, stage)
