"""What the driver asks of the specs axis: who bounds which block of start rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

Bound = Callable[[int], Tensor]


class Rows(Protocol):
    """How the row blocks of a start node lie."""

    def share(self, blocks: Sequence[Tensor], like: Tensor, bound: Bound) -> list[Tensor]:
        """Lower bounds of every block, on every rank, whoever computed them.

        blocks: what each is of, the same on all ranks: flat neurons [N], which have two rows each,
        or rows [N, outputs]. `bound` gives [rows, B] of one, with the dtype and B of `like`.
        """
        ...

    def finished(self, done: bool) -> bool:
        """Whether a block's optimisation may end: when it is done, and all that run beside it."""
        ...


def row_counts(blocks: Sequence[Tensor]) -> list[int]:
    """How many rows each of them has."""
    return [len(block) * (2 if block.dim() == 1 else 1) for block in blocks]


class WholeRows:
    """Every rank bounds every block."""

    def share(self, blocks: Sequence[Tensor], like: Tensor, bound: Bound) -> list[Tensor]:
        return [bound(block) for block in range(len(blocks))]

    def finished(self, done: bool) -> bool:
        return done
