"""Blocks of weights that are nearly all zeros: products with them skip the zeros.

Whether a block is one follows from its values alone, so that every rank multiplies alike. A sum
without its zeros has fewer terms than it is charged for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

# Smaller blocks are multiplied in about the time that a call takes.
LEAST_VALUES = 16 * 1024
# What a value of a sparse block costs, in values of a dense one, and a row or column of it: it
# takes longer, and numbers beside it. Both copies of a block have at most an eighth of its bytes.
VALUE_COST, LINE_COST = 64, 16


@dataclass(frozen=True)
class LeftRows:
    """A [N, outputs], that all blocks of a weight are multiplied with."""

    upright: Tensor

    @cached_property
    def lying(self) -> Tensor:
        """Its transpose, in the order of memory that sparse products want: made once for all."""
        return self.upright.T.contiguous()


@dataclass(frozen=True)
class SparseBlock:
    """`across`: W by rows; `down`: its transpose by rows; each is for one direction."""

    across: Tensor
    down: Tensor

    def times(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """change(W) x for each row of x: [N, columns] to [N, outputs]."""
        # Changed before it is float64, where each copy is as large as two blocks.
        return (change(self.across).to(x.dtype) @ x.T).T.contiguous()

    def before(self, rows: LeftRows) -> Tensor:
        """A W: [N, columns]."""
        return (self.down.to(rows.upright.dtype) @ rows.lying).T


class SparseBlocks:
    """The blocks W[:, start:stop] of one weight, as far as they have been seen."""

    def __init__(self) -> None:
        self._seen: dict[int, SparseBlock | None] = {}

    def of(self, start: int, block: Tensor) -> SparseBlock | None:
        """None where it is multiplied as it is."""
        if block.numel() < LEAST_VALUES or block.device.type != "cpu":
            return None
        if start not in self._seen:
            self._seen[start] = _sparse(block)
        return self._seen[start]


def _sparse(block: Tensor) -> SparseBlock | None:
    """None for a block of which too much is not zero."""
    cost = int(block.count_nonzero()) * VALUE_COST + sum(block.shape) * LINE_COST
    if cost > block.numel():
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return SparseBlock(block.to_sparse_csr(), block.T.to_sparse_csr())
