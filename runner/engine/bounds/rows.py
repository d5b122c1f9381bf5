"""What the driver asks of the specs axis: who bounds which block of start rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

Bound = Callable[[int], Tensor]


class Rows(Protocol):
    """How the row blocks of a start node lie."""

    def share(
        self, counts: list[int], like: Tensor, bound: Callable[[int], Tensor]
    ) -> list[Tensor]:
        """Lower bounds of every block, on every rank, whoever computed them.

        counts: rows of each block; `bound` gives [rows, B] of one, with the dtype and B of `like`.
        """
        ...

    def finished(self, done: bool) -> bool:
        """Whether a block's optimisation may end: when it is done, and all that run beside it."""
        ...


class WholeRows:
    """Every rank bounds every block."""

    def share(
        self, counts: list[int], like: Tensor, bound: Callable[[int], Tensor]
    ) -> list[Tensor]:
        return [bound(block) for block in range(len(counts))]

    def finished(self, done: bool) -> bool:
        return done
