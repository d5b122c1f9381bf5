"""MixTrain (arXiv 1811.02625): sound bounds on a few points, and a loss mixed anew each epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from runner.training.differentiable import Bound, margins
from runner.training.methods.method import TrainingMethod, parts, plain_loss, robust_loss
from runner.training.ranges import within
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class MixTrain(TrainingMethod):
    """(1 - a) cross-entropy on the batch + a robust cross-entropy on `k` points drawn from it.

    a is, of the held-out points whose robustness is not proved, the share that is classified right:
    while accuracy is what lacks, a is small; while proofs lack, it is large. It stays between
    `least` and `most`, and is `fixed` if that is not negative. The paper's rule could not be read:
    this is a definition of our own.
    """

    k: int = 16
    least: float = 0.1
    most: float = 0.9
    fixed: float = -1.0

    def __post_init__(self) -> None:
        within("k", self.k, 1, 10_000)
        within("least", self.least, 0, 1)
        within("most", self.most, self.least, 1)
        within("fixed", self.fixed, -1, 1)

    def refuse_batches_of(self, count: int) -> None:
        within("k", self.k, 1, count)

    def begin_epoch(self, network: nn.Module, held_out: Batch, stage: Stage) -> Stage:
        if self.fixed >= 0:
            return replace(stage, mixing=self.fixed)
        share = lost_to_proofs(network, held_out, stage.grown)
        return replace(stage, mixing=min(self.most, max(self.least, share)))

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        few = parts(batch, self.k, stage.generator)
        robust = robust_loss(network, few, stage.grown, Bound.CROWN_IBP)
        return (1 - stage.mixing) * plain_loss(network, batch) + stage.mixing * robust


def lost_to_proofs(network: nn.Module, batch: Batch, radius: float) -> float:
    """(accuracy - verified accuracy) / (1 - verified accuracy); 0 where all is proved."""
    with torch.no_grad():
        right = network(batch.images).argmax(1) == batch.labels
        worst = margins(network, batch.images, batch.labels, radius, Bound.CROWN_IBP)
        others = torch.arange(worst.shape[1]) != batch.labels[:, None]
        proved = ((worst > 0) | ~others).all(1)
    open_ = int((~proved).sum())
    return int((right & ~proved).sum()) / open_ if open_ else 0.0
