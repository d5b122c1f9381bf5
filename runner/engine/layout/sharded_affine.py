"""Linear and Conv whose neurons lie on several ranks.

Rank p keeps W_p, the rows of its own output neurons. Backward, A_p W_p is a partial sum over p:
the columns of each rank q that keeps a part of the input go there (reduce-scatter). Forward,
vectors are whole on every rank: W_p x is gathered, and so it is for gradients, over the column
blocks that every strategy sums in the same order. Gradients then differ by little from one rank's,
and α-CROWN takes the same steps: they cancel, so that another order of sums parts their ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.affine import AffineMap, ConvMap, Terms, affine_map, all_whole
from runner.engine.bounds.affine_passes import adjoint
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.rounding import LEDGER, enclosed, floor, grown, lost, rounded
from runner.engine.bounds.tagging import Tagger
from runner.engine.bounds.weights import BlockFunction, BlockShape
from runner.engine.layout.feature_shares import Shares
from runner.engine.layout.group import Group
from runner.engine.network.graph import Node, Op

# Output neurons (or channels) -> their rows of the weight.
Fetch = Callable[[slice], Tensor]


class HeldWeights:
    """Tensors that this rank has whole: `Weights` of one block each."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def products(
        self, name: str, function: BlockFunction, shape: BlockShape, dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        weight = self._tensors[name]
        yield 0, weight.shape[1], function(0, weight.shape[1], weight)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def fetched(self, name: str) -> HeldWeights:
        return self

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


@dataclass(frozen=True)
class GatheredWeight:
    """`Weights` of one Conv whose rows other ranks have, too: `whole` asks them for these.

    whole: the weight, on every rank that calls it, which all do; size: its shape.
    """

    whole: Callable[[], Tensor]
    size: tuple[int, ...]
    bias: Tensor
    blocks: tuple[slice, ...]

    def products(
        self, name: str, function: BlockFunction, shape: BlockShape, dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        weight = self.whole()
        for block in self.blocks:
            columns = weight[:, block].contiguous()
            yield block.start, block.stop, function(block.start, block.stop, columns)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.size

    def fetched(self, name: str) -> GatheredWeight:
        weight = self.whole()
        return replace(self, whole=lambda: weight)

    def tensor(self, name: str) -> Tensor:
        return self.bias


@dataclass(frozen=True)
class Placed:
    """Where a Linear or Conv lies: shares of its input (None: whole) and of its output.

    `blocks`: of the weight's columns, as every strategy sums over them.
    """

    node: Node
    input_shape: tuple[int, ...]
    inputs: Shares | None
    outputs: Shares
    blocks: tuple[slice, ...]


class ShardedAffineRule:
    """A LinearRule: whole vectors in forward and interval, own columns in backward."""

    def __init__(
        self,
        placed: Placed,
        fetch: Fetch,
        bias: Tensor,
        group: Group,
        terms: Terms,
        tag: Tagger,
    ) -> None:
        self._tag = tag
        self._terms = terms
        self._placed = placed
        self._group = group
        self._bias = bias
        self._own = placed.outputs.span(group.rank)
        self._outputs = self._own.stop - self._own.start
        inputs = placed.inputs
        self._spans = inputs.spans if inputs else [slice(0, placed.input_shape[0])]
        self.held = fetch(self._own)
        # Of the columns of each rank, and of each block.
        self._toward = [self._map(span) for span in self._spans]
        self._blocks = [self._map(block) for block in placed.blocks]

    def _map(self, columns: slice) -> AffineMap | None:
        """The product with some columns of the own rows; a rank without neurons has none."""
        width = columns.stop - columns.start
        if not width or not self._outputs:
            return None
        node = self._placed.node
        mine = replace(node, shape=(self._outputs, *node.shape[1:]))
        held = {
            node.parameters["weight"]: self.held[:, columns],
            node.parameters["bias"]: self._bias[self._own],
        }
        return affine_map(mine, (width, *self._placed.input_shape[1:]), HeldWeights(held))

    @property
    def convolution(self) -> ConvMap | None:
        """Of images that each rank has others of: weights come here, all of this node's."""
        node = self._placed.node
        if node.op is not Op.CONV:
            return None
        size = node.shape[0], *self.held.shape[1:]
        weights = GatheredWeight(self._weight, size, self._bias, self._placed.blocks)
        return ConvMap(node, self._placed.input_shape, weights)

    def _weight(self) -> Tensor:
        with self._tag.kind(Memory.WEIGHTS):
            whole = self.held.new_empty((self._placed.node.shape[0], *self.held.shape[1:]))
        whole[self._own] = self.held
        for rank, span in enumerate(self._placed.outputs.spans):
            if span.stop > span.start:
                self._group.broadcast(whole[span], rank)
        return whole

    def terms(self, dtype: torch.dtype) -> int:
        return self._terms.of_pass(dtype)

    # Whole vectors: [N, *input] <-> [N, *output].

    def forward(self, *inputs: Tensor) -> Tensor:
        return adjoint(inputs[0], self._apply_whole, self._transpose_whole) + self._shaped_bias(
            inputs[0].dtype
        )

    def interval(self, *inputs: Interval) -> Interval:
        """Each rank keeps the sums of its own neurons; the limits are gathered."""
        x, size = inputs[0], inputs[0].size
        bias = self._shaped_bias(x.lower.dtype)[self._own]
        middle, reach = x.ball
        centre = self._sum([middle], lambda part, of: part.apply(of)).add_(bias)
        sizes = torch.cat((reach, size))
        radius, sums = self._sum([sizes], lambda part, of: part.magnitude(of)).chunk(2)
        sums = sums + bias.abs()
        limits = self._gathered(torch.cat(enclosed(centre, radius, sums, self._terms.forward)))
        lower, upper = limits.chunk(2)
        return Interval(lower, upper, sums.flatten(1), floor(size, self._terms.longest))

    def _apply_whole(self, x: Tensor) -> Tensor:
        return self._gathered(self._sum([x], lambda part, of: part.apply(of)))

    def _transpose_whole(self, rows: Tensor) -> Tensor:
        own = rows[:, self._own].contiguous()
        whole = rows.new_zeros((rows.shape[0], *self._placed.input_shape))
        for span, part in zip(self._spans, self._toward, strict=True):
            if part is not None:
                whole[:, span] = part.transpose(own)
        return self._group.all_reduce(whole)

    def _sum(
        self, parts: Iterable[Tensor], product: Callable[[AffineMap, Tensor], Tensor]
    ) -> Tensor:
        """Over all blocks, of columns [N, *input] that come in parts of any width."""
        total: Tensor | None = None
        widths = [block.stop - block.start for block in self._placed.blocks]
        for block, columns in zip(self._blocks, _cut_again(parts, widths), strict=True):
            if block is not None:
                added = product(block, columns)
                total = added if total is None else total.add_(added)
            elif total is None:
                shape = (columns.shape[0], self._outputs, *self._placed.node.shape[1:])
                total = columns.new_zeros(shape)
        if total is None:
            raise ValueError("a weight has no blocks")
        return total

    def _gathered(self, own: Tensor) -> Tensor:
        parts = [
            own.contiguous()
            if rank == self._group.rank
            else own.new_empty((own.shape[0], self._placed.outputs.length(rank), *own.shape[2:]))
            for rank in range(self._group.size)
        ]
        for rank, part in enumerate(parts):
            if part.numel():
                self._group.broadcast(part, rank)
        return torch.cat(parts, 1)

    @property
    def summands(self) -> int:
        return self._terms.forward

    @cached_property
    def whole(self) -> bool:
        broken = (self.held != self.held.round()).sum().reshape(1).to(LEDGER)
        return not bool(self._group.all_reduce(broken).any()) and all_whole(self._bias)

    def directions(self, *inputs: Tensor) -> Tensor:
        return self._apply_whole(inputs[0])

    def spread(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], columns: int) -> Tensor:
        off = lost(errors[0], sizes[0], self.summands)
        total = self._gathered(self._sum([off], lambda part, of: part.magnitude(of)))
        bias = self._shaped_bias(off.dtype).abs()
        total = torch.add(total, bias, alpha=rounded(self.summands, bias))
        return grown(total, self.summands, columns + 2)

    # Own columns: A [N, *own output] -> [N, *own input], or whole where the input is whole.

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        specs, batch = rows.shape[:2]
        flat = rows.flatten(0, 1)
        # Spelt out, as -1 has no meaning for a rank without neurons.
        dtype = LEDGER if self._terms.image else rows.dtype
        channels = flat.reshape(flat.shape[0], self._outputs, self._inner).sum(2, dtype=dtype)
        constant = channels @ self._bias[self._own].to(dtype)
        product = adjoint(flat, self._transpose_own, self._apply_own)
        return [product.reshape(specs, batch, *product.shape[1:])], constant.reshape(specs, batch)

    def start(self, neurons: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        """One-hot rows times W, and this rank's part of their constants: [N, *own input], [N]."""
        mine = (neurons >= self._own.start * self._inner) & (neurons < self._own.stop * self._inner)
        rows = torch.zeros(
            (len(neurons), self._outputs * self._inner), dtype=dtype, device=neurons.device
        )
        at = mine.nonzero()[:, 0]
        rows[at, neurons[at] - self._own.start * self._inner] = 1.0
        (part,), constant = self.backward(
            rows.reshape(len(neurons), 1, self._outputs, *self._placed.node.shape[1:])
        )
        if constant is None:
            raise ValueError("a Linear or Conv has a bias")
        return part[:, 0], constant[:, 0], None

    @property
    def _inner(self) -> int:
        return self._placed.node.size // max(1, self._placed.node.shape[0])

    def _transpose_own(self, rows: Tensor) -> Tensor:
        kept: Tensor | None = None
        for rank, (span, part) in enumerate(zip(self._spans, self._toward, strict=True)):
            width = span.stop - span.start
            if part is None:
                partial = rows.new_zeros((rows.shape[0], width, *self._placed.input_shape[1:]))
            else:
                partial = part.transpose(rows).contiguous()
            if self._placed.inputs is None:
                return self._group.all_reduce(partial)
            if width:
                self._group.reduce(partial, rank)
            if rank == self._group.rank:
                kept = partial
        if kept is None:
            raise ValueError("every rank has a share, even if it is empty")
        return kept

    def _apply_own(self, gradient: Tensor) -> Tensor:
        """The adjoint: own rows of W times the gradient's columns, which come from every rank."""
        return self._sum(self._passed_round(gradient), lambda part, of: part.apply(of))

    def _passed_round(self, own: Tensor) -> Iterator[Tensor]:
        """Columns of every rank in turn, one's at a time; every rank must take them all."""
        if self._placed.inputs is None:
            yield own
            return
        for rank, span in enumerate(self._spans):
            width = span.stop - span.start
            here = own
            if rank != self._group.rank:
                here = own.new_empty((own.shape[0], width, *own.shape[2:]))
            if width:
                yield self._group.broadcast(here, rank)

    def _shaped_bias(self, dtype: torch.dtype) -> Tensor:
        ones = (1,) * (len(self._placed.node.shape) - 1)
        return self._bias.to(dtype).reshape(-1, *ones)


def _cut_again(parts: Iterable[Tensor], widths: Iterable[int]) -> Iterator[Tensor]:
    """Consecutive columns (dimension 1), cut into other widths; copies only what lies in two."""
    waiting = iter(parts)
    left: Tensor | None = None
    for width in widths:
        found: list[Tensor] = []
        wanted = width
        while wanted:
            if left is None or not left.shape[1]:
                left = next(waiting)
            found.append(left[:, :wanted])
            left = left[:, wanted:]
            wanted -= found[-1].shape[1]
        yield found[0] if len(found) == 1 else torch.cat(found, 1)
