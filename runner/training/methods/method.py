"""What a training method is, and losses that several share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from runner.training.attack import adversarial
from runner.training.differentiable import Bound, margins
from runner.training.stage import Batch, Stage


class TrainingMethod(ABC):
    """A loss for a batch at a stage. A method is a frozen dataclass whose fields are the keys of
    its table in a recipe; its `__post_init__` raises UsageError for values that make no sense.
    """

    def begin_epoch(self, network: nn.Module, held_out: Batch, stage: Stage) -> Stage:
        """The stage of an epoch, after a look at images that are not trained on.

        It may depend on nothing else than what it is given: a resumed training calls it anew.
        """
        del network, held_out
        return stage

    def refuse_batches_of(self, count: int) -> None:
        """Raises UsageError for options that make no sense with batches of so many images."""
        del count

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        """A scalar, for its gradient with respect to the network's parameters."""


def plain_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy."""
    return nn.functional.cross_entropy(network(batch.images), batch.labels)


def attacked_loss(network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
    """Cross-entropy where PGD finds it large."""
    x = adversarial(network, batch.images, batch.labels, stage.radius, stage.steps, stage.generator)
    return nn.functional.cross_entropy(network(x), batch.labels)


def robust_loss(network: nn.Module, batch: Batch, radius: float, bound: Bound) -> Tensor:
    """An upper bound of the cross-entropy over the ball: of the worst margins (Wong & Kolter)."""
    worst = margins(network, batch.images, batch.labels, radius, bound)
    return robust_cross_entropy(worst, batch.labels)


def robust_cross_entropy(worst: Tensor, labels: Tensor) -> Tensor:
    """Of margins [B, classes], 0 at the label."""
    return nn.functional.cross_entropy(-worst, labels)


def parts(batch: Batch, count: int, generator: torch.Generator) -> Batch:
    """`count` of the batch's points, drawn at random."""
    chosen = torch.randperm(len(batch.labels), generator=generator)[:count]
    return Batch(batch.images[chosen], batch.labels[chosen])
