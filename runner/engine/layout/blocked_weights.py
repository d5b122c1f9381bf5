"""Weights in column blocks, each kept by one rank: `fsdp`, and `baseline` with one owner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.tagging import Tagger
from runner.engine.bounds.weights import BlockFunction, BlockShape, dtype_of
from runner.engine.layout.block_owners import Block, BlockPlan
from runner.engine.layout.group import Group
from runner.engine.layout.requests import BlockRequests, Held
from runner.engine.network.graph import Graph

# Products that travel together: what a rank holds of others' at a time.
PARCEL_BYTES = 4 * 1024 * 1024


class TensorSource(Protocol):
    """Where the tensors of a network come from; reads no more than what is asked."""

    def shape(self, name: str) -> tuple[int, ...]: ...

    def tensor(self, name: str) -> Tensor: ...

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """Dimension 1, start to stop."""
        ...


class BlockedWeights:
    """This rank's blocks of every weight, and all small parameters.

    A product with a block of another rank moves whichever is smaller: the block, which is used
    and dropped, or its owner's product. Both give the same bits, as the owner's GEMM is the same.
    `offload`: blocks rest in host memory, and each comes to the device for its product alone.
    """

    def __init__(
        self,
        graph: Graph,
        source: TensorSource,
        plan: BlockPlan,
        group: Group,
        device: torch.device,
        tag: Tagger,
        *,
        offload: bool = False,
    ) -> None:
        self._plan = plan
        self._group = group
        self._device = device
        self._resting = torch.device("cpu") if offload else device
        self._tag = tag
        self._rows_apart = False
        with tag.kind(Memory.WEIGHTS):
            self._blocks = {
                name: [self._load(source, name, block) for block in blocks]
                for name, blocks in plan.items()
            }
            small = {p for node in graph.nodes for p in node.parameters.values()} - set(plan)
            self._small = {name: source.tensor(name).to(device) for name in sorted(small)}
        self._shapes = {name: source.shape(name) for name in plan}
        self._dtype = dtype_of(graph)
        counts = [len(blocks) for blocks in plan.values()]
        self._first = dict(zip(plan, [0, *accumulate(counts)], strict=False))
        self._requests: BlockRequests | None = None

    def _load(self, source: TensorSource, name: str, block: Block) -> Tensor | None:
        if block.owner != self._group.rank:
            return None
        return source.columns(name, block.start, block.stop).contiguous().to(self._resting)

    @property
    def resting_bytes(self) -> int:
        """What this rank keeps between products."""
        blocks = [block for held in self._blocks.values() for block in held if block is not None]
        return sum(tensor.nbytes for tensor in [*blocks, *self._small.values()])

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def tensor(self, name: str) -> Tensor:
        return self._small[name]

    def fetched(self, name: str) -> BlockedWeights:
        """Itself: every rank has all rows and columns, and so the same products."""
        return self

    @contextmanager
    def rows_apart(self) -> Iterator[None]:
        """While ranks multiply different rows, a product helps nobody else: blocks move."""
        self._rows_apart = True
        try:
            yield
        finally:
            self._rows_apart = False

    @contextmanager
    def on_request(self) -> Iterator[Callable[[], None]]:
        """While ranks go different ways. What it gives is to be called by a rank that has to wait
        for the others; it returns when all of them have called it.
        """
        blocks = [
            Held(block.owner, self._shape(name, block), held)
            for name in self._plan
            for block, held in zip(self._plan[name], self._blocks[name], strict=True)
        ]
        self._requests = BlockRequests(blocks, self._dtype, self._group, self._device, self._tag)
        try:
            yield self._requests.serve
        finally:
            self._requests = None

    def products(
        self, name: str, function: BlockFunction, shape: BlockShape, dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        blocks = self._plan[name]
        if self._group.size == 1:
            for block, held in zip(blocks, self._blocks[name], strict=True):
                here = _here(held).to(self._device)
                yield block.start, block.stop, function(block.start, block.stop, here)
            return
        if self._requests is not None:
            yield from self._ask_for_blocks(self._requests, name, function)
            return
        product_bytes = prod(shape(blocks[0].start, blocks[0].stop)) * dtype.itemsize
        if product_bytes < blocks[0].bytes and not self._rows_apart:
            yield from self._move_products(name, function, shape, dtype)
        else:
            yield from self._move_blocks(name, function)

    def _move_products(
        self, name: str, function: BlockFunction, shape: BlockShape, dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Every rank multiplies its own blocks, all at the same time; then the results travel.

        Those of several blocks travel together: small messages cost their number, not their bytes.
        """
        blocks = self._plan[name]
        sizes = [shape(block.start, block.stop) for block in blocks]
        for parcel in _parcels([prod(size) * dtype.itemsize for size in sizes]):
            own = {
                index: function(
                    blocks[index].start, blocks[index].stop, held.to(self._device)
                ).reshape(-1)
                for index in parcel
                if (held := self._blocks[name][index]) is not None
            }
            made: dict[int, Tensor] = {}
            for owner in sorted({blocks[index].owner for index in parcel}):
                indices = [index for index in parcel if blocks[index].owner == owner]
                lengths = [prod(sizes[index]) for index in indices]
                if owner == self._group.rank:
                    flat = torch.cat([own.pop(index) for index in indices])
                else:
                    flat = torch.empty(sum(lengths), dtype=dtype, device=self._device)
                self._group.broadcast(flat, owner)
                made.update(zip(indices, flat.split(lengths), strict=True))
            for index in parcel:
                yield blocks[index].start, blocks[index].stop, made.pop(index).reshape(sizes[index])

    def _ask_for_blocks(
        self, requests: BlockRequests, name: str, function: BlockFunction
    ) -> Iterator[tuple[int, int, Tensor]]:
        for number, block in enumerate(self._plan[name], start=self._first[name]):
            yield block.start, block.stop, function(block.start, block.stop, requests.fetch(number))

    def _shape(self, name: str, block: Block) -> tuple[int, ...]:
        rows, _, *kernel = self._shapes[name]
        return (rows, block.stop - block.start, *kernel)

    def _move_blocks(self, name: str, function: BlockFunction) -> Iterator[tuple[int, int, Tensor]]:
        for block, held in zip(self._plan[name], self._blocks[name], strict=True):
            with self._tag.kind(Memory.WEIGHTS):
                here = (
                    torch.empty(self._shape(name, block), dtype=self._dtype, device=self._device)
                    if held is None
                    else held.to(self._device)
                )
            self._group.broadcast(here, block.owner)
            yield block.start, block.stop, function(block.start, block.stop, here)


def _parcels(sizes: list[int]) -> list[list[int]]:
    """Consecutive indices, together at most PARCEL_BYTES unless one alone has more."""
    parcels: list[list[int]] = []
    filled = 0
    for index, size in enumerate(sizes):
        if not parcels or filled + size > PARCEL_BYTES:
            parcels.append([])
            filled = 0
        parcels[-1].append(index)
        filled += size
    return parcels


def _here(block: Tensor | None) -> Tensor:
    if block is None:
        raise ValueError("a group of one rank owns every block")
    return block
