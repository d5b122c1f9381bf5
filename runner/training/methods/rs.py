"""ReLU stability (Xiao et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner.training.differentiable import Box, relu_boxes
from runner.training.methods.method import TrainingMethod, attacked_loss
from runner.training.ranges import within
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class Rs(TrainingMethod):
    """Adversarial training, and `weight` times -tanh(1 + lower * upper) of interval bounds.

    The paper sums over neurons; here each layer's mean has equal weight, so that one weight suits
    networks of any width: that is a definition of our own.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        within("weight", self.weight, 0, 1e3)

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        boxes = relu_boxes(network, batch.images, stage.grown)
        return attacked_loss(network, batch, stage) + self.weight * instability(boxes)


def instability(boxes: list[Box]) -> Tensor:
    """From -1, where every ReLU is stable, to 1."""
    return torch.stack([-torch.tanh(1 + box.lower * box.upper).mean() for box in boxes]).mean()
