"""Values that are moved: slices, transpositions, paddings with zeros, whatever only says where.

An input that is used several times gathers the coefficients of all its copies, one after the
other and in the order of the outputs, so that sums are the same everywhere.
"""

from __future__ import annotations

from functools import cached_property
from math import prod

import torch
import torch.nn.functional as F
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
    def _order(self) -> tuple[int, ...] | None:
        """Where the input's values, in their order, are those of the output with its dimensions in
        another one, that order; None for all other moves.
        """
        if self._index.numel() != prod(self._input_shape) or not self._index.numel():
            return None
        shape = self._index.shape
        step = [int(self._index.select(axis, -1).flatten()[0]) for axis in range(len(shape))]
        order = tuple(sorted(range(len(shape)), key=lambda axis: (-step[axis], axis)))
        moved = self._index.permute(order).flatten()
        in_order = bool((moved == torch.arange(len(moved), device=moved.device)).all())
        return order if in_order else None

    @cached_property
    def _users(self) -> Tensor:
        """Of each input the flat output that it feeds first, one behind the last where it feeds
        none.
        """
        flat = self._index.flatten()
        users = flat.new_full((prod(self._input_shape),), flat.numel())
        return users.index_copy(0, *self._rounds[0]) if self._rounds else users

    @cached_property
    def _unused(self) -> bool:
        """Whether there is an input that feeds nothing."""
        return bool((self._users == self._index.numel()).any())

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
        if self._order is not None:
            shape = [self._index.shape[axis] for axis in self._order]
            back = (1 + self._order.index(axis) for axis in range(len(shape)))
            return inputs[0].reshape(-1, *shape).permute(0, *back).contiguous()
        return selected(inputs[0], self._index, zeros=bool(self._node.attributes["zeros"]))

    def interval(self, *inputs: Interval) -> Interval:
        lower, upper = self.forward(inputs[0].lower), self.forward(inputs[0].upper)
        if self._node.attributes["once"]:
            return Interval(lower, upper)
        # Coefficients of an input that is used more than once are added up.
        size = torch.maximum(lower.abs(), upper.abs())
        return Interval(lower, upper, size.flatten(1), floor(inputs[0].size, len(self._rounds)))

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        if self._order is not None:
            moved = rows.permute(0, 1, *(2 + axis for axis in self._order))
            return [moved.reshape(*rows.shape[:2], *self._input_shape)], None
        flat = rows.flatten(2)
        # From the rows even where they feed nothing: a rank whose gradients ended here would not
        # take part in the collectives before.
        found = (F.pad(flat, (0, 1)) if self._unused else flat).index_select(2, self._users)
        for inputs, outputs in self._rounds[1:]:
            moved = flat.index_select(2, outputs) + found.index_select(2, inputs)
            found = found.index_copy(2, inputs, moved)
        return [found.reshape(*rows.shape[:2], *self._input_shape)], None
