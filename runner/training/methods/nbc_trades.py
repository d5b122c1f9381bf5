"""Neuron behaviour consistency with TRADES."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from runner.training.methods.method import TrainingMethod
from runner.training.methods.nbc import nbc_loss
from runner.training.methods.trades import trades_loss
from runner.training.ranges import within
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class NbcTrades(TrainingMethod):
    """The loss of TRADES with its `beta`, and `weight` times the inconsistency."""

    weight: float = 1.0
    beta: float = 6.0

    def __post_init__(self) -> None:
        within("weight", self.weight, 0, 1e3)
        within("beta", self.beta, 0, 1e3)

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        both = trades_loss(network, batch, stage, self.beta)
        return both + self.weight * nbc_loss(network, batch, stage)
