"""TRADES (Zhang et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from runner.training.attack import ascend
from runner.training.methods.method import TrainingMethod
from runner.training.ranges import within
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class Trades(TrainingMethod):
    """`beta`: weight of the divergence between the answers at a point and at its neighbour."""

    beta: float = 6.0

    def __post_init__(self) -> None:
        within("beta", self.beta, 0, 1e3)

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        return trades_loss(network, batch, stage, self.beta)


def trades_loss(network: nn.Module, batch: Batch, stage: Stage, beta: float) -> Tensor:
    """Cross-entropy, and beta times the mean Kullback-Leibler divergence to where it is large."""
    answers = network(batch.images)
    here = answers.detach()
    neighbours = ascend(
        lambda x: divergence(here, network(x)).sum(),
        batch.images,
        stage.radius,
        stage.steps,
        stage.generator,
    )
    apart = divergence(answers, network(neighbours)).mean()
    return nn.functional.cross_entropy(answers, batch.labels) + beta * apart


def divergence(answers: Tensor, others: Tensor) -> Tensor:
    """Kullback-Leibler [B], of the distribution `others` from that of `answers`."""
    log = answers.log_softmax(1)
    return (log.exp() * (log - others.log_softmax(1))).sum(1)
