"""Linear and Conv whose neurons lie on several ranks.

Rank p keeps W_p, the rows of its own output neurons, in one part W_pq for every rank q that keeps
a part of the input. Backward, A_p W_p is a partial sum over p: each column part goes to its rank
(reduce-scatter). Forward, vectors are whole on every rank: W_p x is gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.bounds.affine import AffineMap, adjoint, affine_map
from runner.bounds.interval import Interval
from runner.bounds.weights import BlockFunction, BlockShape
from runner.network.graph import Node
from runner.parallel.features import Shares
from runner.parallel.group import Group

# Output neurons (or channels), input neurons (or channels) -> that part of the weight.
Fetch = Callable[[slice, slice], Tensor]


class HeldWeights:
    """Tensors that this rank has whole: `Weights` of one block each."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def products(
        self, name: str, function: BlockFunction, shape: BlockShape, dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        weight = self._tensors[name]
        yield 0, weight.shape[1], function(0, weight.shape[1], weight)

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


@dataclass(frozen=True)
class Layout:
    """Where a Linear or Conv lies: shares of its input (None: whole) and of its output."""

    node: Node
    input_shape: tuple[int, ...]
    inputs: Shares | None
    outputs: Shares


class ShardedAffineRule:
    """A LinearRule: whole vectors in forward and interval, own columns in backward."""

    def __init__(self, layout: Layout, fetch: Fetch, bias: Tensor, group: Group) -> None:
        self._layout = layout
        self._group = group
        self._bias = bias
        own = layout.outputs.span(group.rank)
        spans = layout.inputs.spans if layout.inputs else [slice(0, layout.input_shape[0])]
        self._spans = spans
        self._outputs = own.stop - own.start
        self._own = own
        node = replace(layout.node, shape=(self._outputs, *layout.node.shape[1:]))
        self.held: list[Tensor] = []
        self._maps: list[AffineMap | None] = []
        for span in spans:
            width = span.stop - span.start
            if not width or not self._outputs:
                self._maps.append(None)  # a rank without neurons has no product
                continue
            weight = fetch(own, span)
            self.held.append(weight)
            weights = HeldWeights(
                {node.parameters["weight"]: weight, node.parameters["bias"]: bias[own]}
            )
            self._maps.append(affine_map(node, (width, *layout.input_shape[1:]), weights))

    # Whole vectors: [N, *input] <-> [N, *output].

    def forward(self, *inputs: Tensor) -> Tensor:
        return adjoint(inputs[0], self._apply_whole, self._transpose_whole) + self._shaped_bias(
            inputs[0].dtype
        )

    def interval(self, *inputs: Interval) -> Interval:
        x = inputs[0]
        centre = self._apply_whole(x.centre).add_(self._shaped_bias(x.lower.dtype))
        radius = self._gathered(self._sum(x.radius, lambda part, of: part.magnitude(of)))
        return Interval(centre - radius, centre + radius)

    def _apply_whole(self, x: Tensor) -> Tensor:
        return self._gathered(self._sum(x, lambda part, of: part.apply(of)))

    def _transpose_whole(self, rows: Tensor) -> Tensor:
        own = rows[:, self._own].contiguous()
        whole = rows.new_zeros((rows.shape[0], *self._layout.input_shape))
        for span, part in zip(self._spans, self._maps, strict=True):
            if part is not None:
                whole[:, span] = part.transpose(own)
        return self._group.all_reduce(whole)

    def _sum(self, x: Tensor, product: Callable[[AffineMap, Tensor], Tensor]) -> Tensor:
        total = x.new_zeros((x.shape[0], self._outputs, *self._layout.node.shape[1:]))
        for span, part in zip(self._spans, self._maps, strict=True):
            if part is not None:
                total += product(part, x[:, span].contiguous())
        return total

    def _gathered(self, own: Tensor) -> Tensor:
        parts = [
            own.contiguous()
            if rank == self._group.rank
            else own.new_empty((own.shape[0], self._layout.outputs.length(rank), *own.shape[2:]))
            for rank in range(self._group.size)
        ]
        for rank, part in enumerate(parts):
            if part.numel():
                self._group.broadcast(part, rank)
        return torch.cat(parts, 1)

    # Own columns: A [N, *own output] -> [N, *own input], or whole where the input is whole.

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        specs, batch = rows.shape[:2]
        flat = rows.flatten(0, 1)
        # Spelt out, as -1 has no meaning for a rank without neurons.
        spread = self._bias[self._own].to(rows.dtype)
        constant = flat.reshape(flat.shape[0], self._outputs, self._inner).sum(2) @ spread
        product = adjoint(flat, self._transpose_own, self._apply_own)
        return [product.reshape(specs, batch, *product.shape[1:])], constant.reshape(specs, batch)

    def start(self, neurons: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """One-hot rows times W, and this rank's part of their constants: [N, *own input], [N]."""
        mine = (neurons >= self._own.start * self._inner) & (neurons < self._own.stop * self._inner)
        rows = torch.zeros(
            (len(neurons), self._outputs * self._inner), dtype=dtype, device=neurons.device
        )
        at = mine.nonzero()[:, 0]
        rows[at, neurons[at] - self._own.start * self._inner] = 1.0
        (part,), constant = self.backward(
            rows.reshape(len(neurons), 1, self._outputs, *self._layout.node.shape[1:])
        )
        if constant is None:
            raise ValueError("a Linear or Conv has a bias")
        return part[:, 0], constant[:, 0]

    @property
    def _inner(self) -> int:
        return self._layout.node.size // max(1, self._layout.node.shape[0])

    def _transpose_own(self, rows: Tensor) -> Tensor:
        kept: Tensor | None = None
        for rank, (span, part) in enumerate(zip(self._spans, self._maps, strict=True)):
            width = span.stop - span.start
            if part is None:
                partial = rows.new_zeros((rows.shape[0], width, *self._layout.input_shape[1:]))
            else:
                partial = part.transpose(rows).contiguous()
            if self._layout.inputs is None:
                return self._group.all_reduce(partial)
            if width:
                self._group.reduce(partial, rank)
            if rank == self._group.rank:
                kept = partial
        if kept is None:
            raise ValueError("every rank has a share, even if it is empty")
        return kept

    def _apply_own(self, gradient: Tensor) -> Tensor:
        """The adjoint: every rank's columns of the gradient, in turn, times its part."""
        shape = (gradient.shape[0], self._outputs, *self._layout.node.shape[1:])
        total = gradient.new_zeros(shape)
        for rank, (span, part) in enumerate(zip(self._spans, self._maps, strict=True)):
            here = gradient
            if self._layout.inputs is not None:
                width = span.stop - span.start
                if rank != self._group.rank:
                    here = gradient.new_empty((gradient.shape[0], width, *gradient.shape[2:]))
                if width:
                    self._group.broadcast(here, rank)
            if part is not None:
                total += part.apply(here)
        return total

    def _shaped_bias(self, dtype: torch.dtype) -> Tensor:
        ones = (1,) * (len(self._layout.node.shape) - 1)
        return self._bias.to(dtype).reshape(-1, *ones)
