"""Where outputs are counterexamples, as tensors: how far points are from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runner.problem.property.model import Conjunction


@dataclass(frozen=True)
class Region:
    """Constraints of T targets: matrix [T, K, outputs] and rhs [T, K], padded with ones that always
    hold.
    """

    matrix: Tensor
    rhs: Tensor

    @staticmethod
    def of(regions: Sequence[Conjunction], device: torch.device, dtype: torch.dtype) -> Region:
        most = max(1, *(len(region.rhs) for region in regions))
        matrix = np.zeros((len(regions), most, regions[0].matrix.shape[1]))
        rhs = np.full((len(regions), most), np.inf)
        for index, region in enumerate(regions):
            matrix[index, : len(region.rhs)] = region.matrix
            rhs[index, : len(region.rhs)] = region.rhs
        return Region(
            torch.from_numpy(matrix).to(device, dtype), torch.from_numpy(rhs).to(device, dtype)
        )

    def excess(self, outputs: Tensor) -> Tensor:
        """[T, R, outputs] -> how far each constraint is from holding [T, R, K]; <= 0 holds."""
        return torch.baddbmm(-self.rhs[:, None], outputs, self.matrix.transpose(1, 2))

    def nearest(self, outputs: Tensor) -> Tensor:
        """Of outputs [1, R, outputs]: what all constraints of a target miss, of the nearest one."""
        return self._missed(outputs).amin(0)

    def cross_entropy(self, outputs: Tensor) -> Tensor:
        """Of outputs [1, R, outputs]: what -log of the softmax is where the targets are the other
        classes, up to the sign: log(1 + Σ exp(-missed)), negated so that less is nearer.
        """
        missed = self.excess(outputs.expand(len(self.rhs), -1, -1)).amax(2)
        return -torch.nn.functional.softplus(torch.logsumexp(-missed, 0))

    def _missed(self, outputs: Tensor) -> Tensor:
        """Of outputs [1, R, outputs]: by how much all constraints of each target fail, [T, R]."""
        return self.excess(outputs.expand(len(self.rhs), -1, -1)).clamp(min=0).sum(2)

    def worst(self, excess: Tensor) -> Tensor:
        """[T, R]: of the constraint furthest from holding; strictness is the confirmation's."""
        return excess.amax(2).nan_to_num(nan=torch.inf)
