"""CROWN-IBP (Zhang et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from runner.training.differentiable import Bound, margins
from runner.training.methods.method import TrainingMethod, plain_loss, robust_cross_entropy
from runner.training.ranges import within
from runner.training.stage import Batch, Stage


@dataclass(frozen=True)
class CrownIbp(TrainingMethod):
    """As `ibp`, on a mix of margins: at first CROWN-IBP's alone, at the end IBP's.

    `clean`: weight of the plain cross-entropy at the end; it starts at 1.
    """

    clean: float = 0.0

    def __post_init__(self) -> None:
        within("clean", self.clean, 0, 1)

    def loss(self, network: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        clean = 1 - stage.ramp * (1 - self.clean)
        worst = stage.ramp * margins(network, batch.images, batch.labels, stage.grown, Bound.IBP)
        if stage.ramp < 1:
            tight = margins(network, batch.images, batch.labels, stage.grown, Bound.CROWN_IBP)
            worst = worst + (1 - stage.ramp) * tight
        robust = robust_cross_entropy(worst, batch.labels)
        return clean * plain_loss(network, batch) + (1 - clean) * robust
