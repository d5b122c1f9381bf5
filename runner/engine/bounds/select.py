"""Values that are moved: slices, transpositions, paddings with zeros, whatever only says where.

An input that is used several times gathers the coefficients of all its copies, one after the
other and in the order of the outputs, so that sums are the same everywhere.
"""

from __future__ import annotations

from functools import cached_property
from math import prod

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.rounding import floor
from runner.engine.bounds.rules import Moving
from runner.engine.bounds.weights import Weights
from runner.engine.network.evaluate import selected
from runner.engine.network.graph import Node


class SelectRule(Moving):
    """y = x[index]; 0 where the index is -1."""

    def __init__(self, node: Node, input_shape: tuple[int, ...], weights: Weights) -> None:
        self._node = node
        self._input_shape = input_shape
        self._weights = weights

    @cached_property
    def _index(self) -> Tensor:
        return self._weights.tensor(self._node.parameters["index"])

    @cached_property
    def _rounds(self) -> list[tuple[Tensor, Tensor]]:
        """Flat inputs and the outputs that each feeds: first uses, second uses, and so on."""
        flat = self._index.flatten()
        outputs = (flat >= 0).nonzero()[:, 0]
        inputs, order = flat[outputs].sort(stable=True)
        outputs = outputs[order]
        _, counts = inputs.unique_consecutive(return_counts=True)
        starts = counts.cumsum(0) - counts
        use = torch.arange(len(inputs), device=flat.device) - starts.repeat_interleave(counts)
        most = int(counts.max()) if len(counts) else 0
        return [(inputs[use == number], outputs[use == number]) for number in range(most)]

    def terms(self, dtype: torch.dtype) -> int:
        return len(self._rounds)

    def forward(self, *inputs: Tensor) -> Tensor:
        return selected(inputs[0], self._index, zeros=bool(self._node.attributes["zeros"]))

    def interval(self, *inputs: Interval) -> Interval:
        lower, upper = self.forward(inputs[0].lower), self.forward(inputs[0].upper)
        if self._node.attributes["once"]:
            return Interval(lower, upper)
        # Coefficients of an input that is used more than once are added up.
        size = torch.maximum(lower.abs(), upper.abs())
        return Interval(lower, upper, size.flatten(1), floor(inputs[0].size, len(self._rounds)))

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        flat = rows.flatten(2)
        result = flat.new_zeros(*flat.shape[:2], prod(self._input_shape))
        for inputs, outputs in self._rounds:
            moved = flat.index_select(2, outputs)
            if inputs is not self._rounds[0][0]:
                moved = moved + result.index_select(2, inputs)
            result = result.index_copy(2, inputs, moved)
        return [result.reshape(*rows.shape[:2], *self._input_shape)], None
