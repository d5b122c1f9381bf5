"""Weights too small for a normal number: CPUs may take far longer for products with them.

cifar_biasfield's networks have some thousands, with which convolutions took 3 to 6 times as long;
more than half of metaroom's largest weight is so small. A power of two makes them normal numbers,
which is exact, as it is to take that off the products again; but for what underflows there, once
for each sum, which is charged (runner.engine.bounds.rounding, 9) and less than its products would
lose.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from runner.engine.bounds.rounding import smallest

# Beside larger weights, products would overflow sooner than they have to.
LARGEST = 1e6
# Of a block, what is looked at together: copies of all would count where it is the most there is.
LOOKED_AT = 64 * 1024


class Normalised:
    """The blocks of one weight, as far as they have been seen."""

    def __init__(self) -> None:
        self._subnormal: dict[tuple[int, torch.dtype], bool] = {}

    def product(self, start: int, block: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """function(block), which is linear."""
        if block.is_cuda or not self._has_subnormals(start, block):
            return function(block)
        power = 1 / torch.finfo(block.dtype).eps
        return function(block * power).mul_(1 / power)

    def _has_subnormals(self, start: int, block: Tensor) -> bool:
        key = start, block.dtype
        if key not in self._subnormal:
            rows = block.split(max(1, LOOKED_AT * len(block) // max(1, block.numel())))
            largest = max((float(some.abs().max()) for some in rows if some.numel()), default=0.0)
            self._subnormal[key] = largest <= LARGEST and any(map(_any_subnormal, rows))
        return self._subnormal[key]


def _any_subnormal(weights: Tensor) -> bool:
    size = weights.abs()
    return bool(((size > 0) & (size < smallest(weights.dtype))).any())
