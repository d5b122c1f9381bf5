"""What the driver asks of the weights axis: products with blocks of a weight's input columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from runner.engine.network.graph import Dtype, Graph

# Of one block W[:, start:stop] (dimension 1 of a Linear or Conv weight): start, stop, block.
BlockFunction = Callable[[int, int, Tensor], Tensor]
# Shape of a BlockFunction's result for columns start to stop.
BlockShape = Callable[[int, int], tuple[int, ...]]


def dtype_of(graph: Graph) -> torch.dtype:
    """Of a network's own weights, and what it is computed in if nothing asks for more."""
    return torch.float64 if graph.dtype is Dtype.FLOAT64 else torch.float32


class Weights(Protocol):
    """Weights of Linear and Conv in fixed column blocks, wherever the blocks lie."""

    def products(
        self, name: str, function: BlockFunction, shape: BlockShape, dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Yields (start, stop, function(start, stop, block)) for every block, in column order.

        `shape` and `dtype` are of the results, so that a rank may receive one it did not make.

        No whole weight exists at any time: a block, or its product, is dropped once the caller
        asks for the next. Every rank must consume the whole iterator.
        """
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a whole weight."""
        ...

    def fetched(self, name: str) -> Weights:
        """For products that some ranks have more of than others: what those would all have to call
        for is here as long as this is kept. All ranks call it; themselves where nothing is.
        """
        ...

    def tensor(self, name: str) -> Tensor:
        """A small parameter that is replicated everywhere (bias, scale, shift)."""
        ...
