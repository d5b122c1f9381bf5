"""Blocks of weights for ranks that go different ways: each says what it wants next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.tagging import Tagger
from runner.engine.layout.group import Group

NOTHING = -1  # the wish of a rank that is done


@dataclass(frozen=True)
class Held:
    """A block of some rank; `here`: its values, on its owner alone."""

    owner: int
    shape: tuple[int, ...]
    here: Tensor | None


class BlockRequests:
    """No order of requests is agreed on: all ranks tell their wishes, owners send what is wished.

    A rank waits for the others to wish or to `serve`, so all must do one or the other again and
    again, until all serve.
    """

    def __init__(
        self,
        blocks: list[Held],
        dtype: torch.dtype,
        group: Group,
        device: torch.device,
        tag: Tagger,
    ) -> None:
        self._blocks = blocks
        self._dtype = dtype
        self._group = group
        self._device = device
        self._tag = tag

    def fetch(self, number: int) -> Tensor:
        """That block; its owner gets it at once and asks nobody."""
        held = self._blocks[number]
        if held.here is not None:
            return held.here
        with self._tag.kind(Memory.WEIGHTS):
            coming = torch.empty(held.shape, dtype=self._dtype, device=self._device)
        self._deliver(number, coming)
        return coming

    def serve(self) -> None:
        """Until no rank wants a block any more."""
        while self._deliver(NOTHING, None):
            pass

    def _deliver(self, wish: int, coming: Tensor | None) -> bool:
        """One exchange; whether any rank had a wish."""
        wishes = self._group.all_gather(torch.tensor([wish])).flatten().tolist()
        outgoing = []
        for rank, number in enumerate(wishes):
            here = None if number == NOTHING else self._blocks[number].here
            if here is not None:
                outgoing.append((here, rank))
        incoming = [] if coming is None else [(coming, self._blocks[wish].owner)]
        self._group.swap(outgoing, incoming)
        return any(number != NOTHING for number in wishes)
