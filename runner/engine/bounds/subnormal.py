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
            size = block.abs()
            few = (size > 0) & (size < smallest(block.dtype))
            self._subnormal[key] = bool(few.any()) and bool(size.max() <= LARGEST)
        return self._subnormal[key]
