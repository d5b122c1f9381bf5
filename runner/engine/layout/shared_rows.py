"""Rows of start nodes on several ranks: each bounds its own blocks, and bounds alone travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from zlib import crc32

import torch
from torch import Tensor

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.bounds.rows import Bound, row_counts
from runner.engine.clock import TimeIsUp
from runner.engine.layout.group import Group


class SharedRows:
    """Block b belongs to rank b modulo P: blocks of one start node cost alike.

    `lockstep`: the ranks' blocks run side by side through the same collectives, so that a rank
    without a block of its own repeats the last one. Otherwise ranks run alone, and one whose time
    is up leaves its blocks without bounds. `apart` is entered while ranks have different rows;
    `check` is called by all ranks after each exchange, and may raise on all.
    """

    def __init__(
        self,
        group: Group,
        *,
        lockstep: bool,
        apart: Callable[[], AbstractContextManager[None]] = nullcontext,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._group = group
        self._lockstep = lockstep
        self._apart = apart
        self._check = check

    def share(self, blocks_of: Sequence[Tensor], like: Tensor, bound: Bound) -> list[Tensor]:
        """Raises InstanceError GANG_MISMATCH on all ranks where they want bounds of other rows."""
        counts = row_counts(blocks_of)
        self._check_alike(blocks_of, counts)
        size, rank, blocks = self._group.size, self._group.rank, len(counts)
        own: dict[int, Tensor] = {}
        with self._apart():
            for block in range(rank, blocks + (-blocks) % size, size):
                if block < blocks:
                    own[block] = self._bounded(block, counts, like, bound)
                elif self._lockstep:
                    bound(blocks - 1)
        found = self._exchanged(own, counts, like)
        self._check()
        return found

    def _check_alike(self, blocks_of: Sequence[Tensor], counts: list[int]) -> None:
        """A bound that comes is taken for the row that stands at its place here."""
        digest = 0
        for block in blocks_of:
            digest = crc32(block.cpu().contiguous().numpy().tobytes(), digest)
        mine = torch.tensor([len(counts), sum(counts), digest])
        if bool((self._group.all_gather(mine) != mine).any()):
            raise InstanceError(
                Cause.GANG_MISMATCH,
                "the ranks have other bounds of the same neurons, so they cannot share rows: "
                "their machines compute differently; use machines of one kind",
            )

    def _bounded(self, block: int, counts: list[int], like: Tensor, bound: Bound) -> Tensor:
        try:
            return bound(block)
        except TimeIsUp:
            return like.new_full((counts[block], like.shape[0]), -torch.inf)

    def _exchanged(self, own: dict[int, Tensor], counts: list[int], like: Tensor) -> list[Tensor]:
        """One broadcast from each rank, of all its blocks' bounds."""
        found: dict[int, Tensor] = {}
        for owner in range(min(self._group.size, len(counts))):
            blocks = range(owner, len(counts), self._group.size)
            if owner == self._group.rank:
                rows = torch.cat([own[block] for block in blocks]).contiguous()
            else:
                total = sum(counts[block] for block in blocks)
                rows = like.new_empty((total, like.shape[0]))
            self._group.broadcast(rows, owner)
            lengths = [counts[block] for block in blocks]
            found.update(zip(blocks, rows.split(lengths), strict=True))
        return [found[block] for block in range(len(counts))]

    def finished(self, done: bool) -> bool:
        return self._group.all_agree(done) if self._lockstep else done
