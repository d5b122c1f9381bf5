"""Neuron behaviour consistency (arXiv 2412.13229): neurons keep their sign near a point."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner.training.attack import ascend
from runner.training.methods.method import TrainingMethod, plain_loss
from runner.training.neurons import pre_activations
from runner.training.ranges import within
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class Nbc(TrainingMethod):
    """Cross-entropy, and `weight` times the inconsistency with a neighbour."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        within("weight", self.weight, 0, 1e3)

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        return plain_loss(network, batch) + self.weight * nbc_loss(network, batch, stage)


def nbc_loss(network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
    """The inconsistency of each point with a neighbour that makes it large; the weight grows."""
    here, _ = pre_activations(network, batch.images)
    sizes, fixed = scales(here), [values.detach() for values in here]
    neighbours = ascend(
        lambda x: inconsistency(fixed, pre_activations(network, x)[0], sizes),
        batch.images,
        stage.radius,
        stage.steps,
        stage.generator,
    )
    there, _ = pre_activations(network, neighbours)
    return stage.ramp * inconsistency(here, there, sizes)


def scales(here: list[Tensor]) -> list[Tensor]:
    """Each layer's mean square, without a gradient: so neurons may grow away from 0."""
    return [values.detach().square().mean().clamp(min=1e-12) for values in here]


def inconsistency(here: list[Tensor], there: list[Tensor], sizes: list[Tensor]) -> Tensor:
    """About 0 where all pre-activations of both points have one sign and are large.

    Of a neuron: the logistic loss softplus(-p) / log 2 of p, the product of its two values by the
    layer's scale: 1 at p = 0, and growing with how far the signs differ. Each layer's mean has
    equal weight. The paper's formula could not be read: this surrogate is a definition of our own.
    """
    layers = [
        nn.functional.softplus(-one * other / size).mean() / math.log(2)
        for one, other, size in zip(here, there, sizes, strict=True)
    ]
    return torch.stack(layers).mean()
