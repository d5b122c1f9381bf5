"""Linear and Conv as a pair of adjoint maps over column blocks: the hot path of every method.

What passes do with them is in runner.engine.bounds.affine_passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from runner.engine.bounds.rounding import LEDGER, summands
from runner.engine.bounds.sparse import LeftRows, SparseBlocks
from runner.engine.bounds.subnormal import Normalised
from runner.engine.bounds.weights import BlockFunction, Weights
from runner.engine.bounds.window import Window
from runner.engine.network.graph import Node, Op


class AffineMap(Protocol):
    """y = W x + b over column blocks of W. N is any number of leading rows."""

    node: Node

    def apply(self, x: Tensor) -> Tensor:
        """W x without the bias: [N, *input] -> [N, *output]."""
        ...

    def transpose(self, rows: Tensor) -> Tensor:
        """A W: [N, *output] -> [N, *input]."""
        ...

    def magnitude(self, radius: Tensor) -> Tensor:
        """|W| r: [N, *input] -> [N, *output]."""
        ...

    def bias(self, dtype: torch.dtype) -> Tensor:
        """[*output], broadcastable."""
        ...

    @property
    def terms(self) -> Terms:
        """Summands of the longest sums."""
        ...

    @property
    def whole(self) -> bool:
        """Whether W is made of whole numbers."""
        ...

    def start_rows(self, neurons: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot rows times W: flat neurons [N] -> [N, *input]."""
        ...


class LinearMap:
    """weight [out, in]; a block is W[:, start:stop]."""

    def __init__(self, node: Node, input_shape: tuple[int, ...], weights: Weights) -> None:
        self.node = node
        self._inputs = input_shape[0]
        self._outputs = node.shape[0]
        self._weights = weights
        self._weight = node.parameters["weight"]
        self._sparse = SparseBlocks()
        self._normal = Normalised()

    @property
    def terms(self) -> Terms:
        return affine_terms(self._weights.shape(self._weight), self.node)

    @property
    def whole(self) -> bool:
        return whole_weight(self._weights, self._weight)

    def apply(self, x: Tensor) -> Tensor:
        return self._sum(x, lambda block: block)

    def magnitude(self, radius: Tensor) -> Tensor:
        return self._sum(radius, torch.abs)

    def _sum(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        rows = x.shape[0]

        def product(start: int, stop: int, block: Tensor) -> Tensor:
            # Not cut where it is whole: each operator costs, on small networks.
            part = x if stop - start == self._inputs else x[:, start:stop]
            sparse = self._sparse.of(start, block)
            if sparse is not None:
                return sparse.times(part, change)
            weight = change(block).to(x.dtype)
            return self._normal.product(start, weight, lambda w: part @ w.T)

        def shape(start: int, stop: int) -> tuple[int, ...]:
            return (rows, self._outputs)

        total: Tensor | None = None
        for _, _, part in self._weights.products(self._weight, product, shape, x.dtype):
            total = part if total is None else total.add_(part)
        return _present(total)

    def transpose(self, rows: Tensor) -> Tensor:
        whole = LeftRows(rows)

        def product(start: int, stop: int, block: Tensor) -> Tensor:
            sparse = self._sparse.of(start, block)
            if sparse is not None:
                return sparse.before(whole)
            return self._normal.product(start, block.to(rows.dtype), lambda w: rows @ w)

        return self._columns(rows.shape[0], rows.dtype, product)

    def apply_at(self, x: Tensor, outputs: Tensor) -> Tensor:
        """`apply`, of some outputs [n] alone: [N, inputs] -> [N, n]."""

        def product(start: int, stop: int, block: Tensor) -> Tensor:
            part = x[:, start:stop]
            return self._normal.product(start, block, lambda w: part @ w[outputs].to(x.dtype).T)

        def shape(start: int, stop: int) -> tuple[int, ...]:
            return (x.shape[0], len(outputs))

        total: Tensor | None = None
        for _, _, part in self._weights.products(self._weight, product, shape, x.dtype):
            total = part if total is None else total.add_(part)
        return _present(total)

    def transpose_at(self, rows: Tensor, outputs: Tensor) -> Tensor:
        """`transpose`, of rows [N, n] that are zero at all but some outputs [n]."""

        def product(start: int, stop: int, block: Tensor) -> Tensor:
            return self._normal.product(start, block, lambda w: rows @ w[outputs].to(rows.dtype))

        return self._columns(rows.shape[0], rows.dtype, product)

    def start_rows(self, neurons: Tensor, dtype: torch.dtype) -> Tensor:
        def chosen(start: int, stop: int, block: Tensor) -> Tensor:
            return block[neurons].to(dtype)

        return self._columns(neurons.shape[0], dtype, chosen)

    def _columns(self, count: int, dtype: torch.dtype, product: BlockFunction) -> Tensor:
        def shape(start: int, stop: int) -> tuple[int, ...]:
            return (count, stop - start)

        result: Tensor | None = None
        for start, stop, part in self._weights.products(self._weight, product, shape, dtype):
            result = _place(result, part, slice(start, stop), (count, self._inputs))
        return _present(result)

    def bias(self, dtype: torch.dtype) -> Tensor:
        return self._weights.tensor(self.node.parameters["bias"]).to(dtype)


class ConvMap:
    """weight [out, in/groups, kh, kw]; a block is W[:, start:stop], whole when grouped."""

    def __init__(self, node: Node, input_shape: tuple[int, ...], weights: Weights) -> None:
        self.node = node
        self._input_shape = input_shape
        self._weights = weights
        self._weight = node.parameters["weight"]
        self._window = Window.of(node)
        self._groups = self._window.groups
        self._normal = Normalised()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._input_shape

    @property
    def stride(self) -> tuple[int, int]:
        return self._window.stride

    @property
    def padding(self) -> tuple[int, int]:
        return self._window.padding

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns that one output sees."""
        kernel, dilation = self._weights.shape(self._weight)[2:], self._window.dilation
        return dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1

    @property
    def of_pixels(self) -> bool:
        """Whether each pixel becomes one by itself, as all others do."""
        plain = self.stride == (1, 1) and self.padding == (0, 0) and self._groups == 1
        return plain and self.extent == (1, 1)

    def unpadded(self, size: tuple[int, int]) -> ConvMap:
        """The same to an image of that size, from all that it sees."""
        seen = [(size[axis] - 1) * self.stride[axis] + self.extent[axis] for axis in (0, 1)]
        attributes = {**self.node.attributes, "padding": (0, 0)}
        node = replace(self.node, shape=(self.node.shape[0], *size), attributes=attributes)
        return ConvMap(node, (self._input_shape[0], *seen), self._weights)

    def fetched(self) -> ConvMap:
        """The same for products that ranks have different numbers of; all ranks call it."""
        return ConvMap(self.node, self._input_shape, self._weights.fetched(self._weight))

    @property
    def terms(self) -> Terms:
        return affine_terms(self._weights.shape(self._weight), self.node)

    @property
    def whole(self) -> bool:
        return whole_weight(self._weights, self._weight)

    def apply(self, x: Tensor) -> Tensor:
        return self._sum(x, lambda block: block)

    def magnitude(self, radius: Tensor) -> Tensor:
        return self._sum(radius, torch.abs)

    def _channels(self, start: int, stop: int) -> slice:
        """Input channels of a block; a grouped weight is one block over all of them."""
        return slice(0, self._input_shape[0]) if self._groups > 1 else slice(start, stop)

    def _sum(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        def product(start: int, stop: int, block: Tensor) -> Tensor:
            part = x[:, self._channels(start, stop)]
            weight = change(block).to(x.dtype)
            return self._normal.product(start, weight, lambda w: self._window.apply(part, w))

        def shape(start: int, stop: int) -> tuple[int, ...]:
            return (x.shape[0], *self.node.shape)

        total: Tensor | None = None
        for _, _, part in self._weights.products(self._weight, product, shape, x.dtype):
            total = part if total is None else total.add_(part)
        return _present(total)

    def transpose(self, rows: Tensor) -> Tensor:
        def product(start: int, stop: int, block: Tensor) -> Tensor:
            def function(weight: Tensor) -> Tensor:
                return self._window.transpose(rows, weight, self._input_shape[1:])

            return self._normal.product(start, block.to(rows.dtype), function)

        def shape(start: int, stop: int) -> tuple[int, ...]:
            channels = self._channels(start, stop)
            return (rows.shape[0], channels.stop - channels.start, *self._input_shape[1:])

        result: Tensor | None = None
        for start, stop, part in self._weights.products(self._weight, product, shape, rows.dtype):
            columns = self._channels(start, stop)
            result = _place(result, part, columns, (rows.shape[0], *self._input_shape))
        return _present(result)

    def start_rows(self, neurons: Tensor, dtype: torch.dtype) -> Tensor:
        rows = torch.zeros((neurons.shape[0], self.node.size), dtype=dtype, device=neurons.device)
        rows.scatter_(1, neurons[:, None], 1.0)
        return self.transpose(rows.reshape(-1, *self.node.shape))

    def bias(self, dtype: torch.dtype) -> Tensor:
        return self._weights.tensor(self.node.parameters["bias"]).to(dtype)[:, None, None]


@dataclass(frozen=True)
class Terms:
    """Summands of the longest sum: `forward` of W x + b, `product` of A W, `backward` of both A W
    and A b; `image`: whether A b is added up in float64.
    """

    forward: int
    product: int
    backward: int
    image: bool

    def of_pass(self, dtype: torch.dtype) -> int:
        """Roundings that a pass in this precision is charged for."""
        return max(self.product, summands(self.backward, dtype)) if self.image else self.backward

    @property
    def longest(self) -> int:
        return max(self.forward, self.backward)


def affine_terms(weight: tuple[int, ...], node: Node) -> Terms:
    """With a weight [out, in / groups, *kernel]; A of a convolution is summed over each channel
    before it meets the bias.
    """
    outputs, inputs, *kernel = weight
    groups = int(node.attributes.get("groups", 1))  # type: ignore[arg-type]
    product = outputs // groups * prod(_meeting(kernel, node))
    longest = max(product, outputs + prod(node.shape[1:]))
    return Terms(inputs * prod(kernel) + 1, product, longest, len(node.shape) > 1)


def _meeting(kernel: list[int], node: Node) -> list[int]:
    """Places of a kernel that meet at one input: a stride leaves every second one out, or more."""
    if not kernel or node.attributes["dilation"] != (1, 1):
        return kernel
    stride: tuple[int, int] = node.attributes["stride"]  # type: ignore[assignment]
    return [-(-size // step) for size, step in zip(kernel, stride, strict=True)]


def all_whole(values: Tensor) -> bool:
    return bool((values == values.round()).all())


def whole_weight(weights: Weights, name: str) -> bool:
    """Whether it is made of whole numbers; every rank asks."""

    def broken(start: int, stop: int, block: Tensor) -> Tensor:
        return (block != block.round()).sum().reshape(1).to(LEDGER)

    found = [part for *_, part in weights.products(name, broken, lambda *_: (1,), LEDGER)]
    return not bool(torch.cat(found).any())


def affine_map(node: Node, input_shape: tuple[int, ...], weights: Weights) -> AffineMap:
    if node.op is Op.LINEAR:
        return LinearMap(node, input_shape, weights)
    return ConvMap(node, input_shape, weights)


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("a weight has no blocks")
    return tensor


def _place(result: Tensor | None, part: Tensor, columns: slice, shape: tuple[int, ...]) -> Tensor:
    """Writes a block's columns into the result; a block of all columns is the result."""
    if part.shape[1] == shape[1]:
        return part
    if result is None:
        result = part.new_empty(shape)
    result[:, columns] = part
    return result
