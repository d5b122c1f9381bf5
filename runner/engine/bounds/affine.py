"""Linear and Conv as a pair of adjoint maps over column blocks: the hot path of every method.

`forward` (x -> W x) and `transpose` (A -> A W) are each other's gradient, so neither PGD nor
α-CROWN keeps a weight in its autograd graph: a block comes again when the gradient needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.rounding import LEDGER, enclosed, floor, summands
from runner.engine.bounds.sparse import LeftRows, SparseBlocks
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
            return self._sparse.times(start, block, part, change)

        def shape(start: int, stop: int) -> tuple[int, ...]:
            return (rows, self._outputs)

        total: Tensor | None = None
        for _, _, part in self._weights.products(self._weight, product, shape, x.dtype):
            total = part if total is None else total.add_(part)
        return _present(total)

    def transpose(self, rows: Tensor) -> Tensor:
        whole = LeftRows(rows)

        def product(start: int, stop: int, block: Tensor) -> Tensor:
            return self._sparse.before(start, block, whole)

        return self._columns(rows.shape[0], rows.dtype, product)

    def apply_at(self, x: Tensor, outputs: Tensor) -> Tensor:
        """`apply`, of some outputs [n] alone: [N, inputs] -> [N, n]."""

        def product(start: int, stop: int, block: Tensor) -> Tensor:
            return x[:, start:stop] @ block[outputs].to(x.dtype).T

        def shape(start: int, stop: int) -> tuple[int, ...]:
            return (x.shape[0], len(outputs))

        total: Tensor | None = None
        for _, _, part in self._weights.products(self._weight, product, shape, x.dtype):
            total = part if total is None else total.add_(part)
        return _present(total)

    def transpose_at(self, rows: Tensor, outputs: Tensor) -> Tensor:
        """`transpose`, of rows [N, n] that are zero at all but some outputs [n]."""

        def product(start: int, stop: int, block: Tensor) -> Tensor:
            return rows @ block[outputs].to(rows.dtype)

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
            return self._window.apply(part, change(block).to(x.dtype))

        def shape(start: int, stop: int) -> tuple[int, ...]:
            return (x.shape[0], *self.node.shape)

        total: Tensor | None = None
        for _, _, part in self._weights.products(self._weight, product, shape, x.dtype):
            total = part if total is None else total.add_(part)
        return _present(total)

    def transpose(self, rows: Tensor) -> Tensor:
        def product(start: int, stop: int, block: Tensor) -> Tensor:
            return self._window.transpose(rows, block.to(rows.dtype), self._input_shape[1:])

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


def adjoint(
    x: Tensor, function: Callable[[Tensor], Tensor], gradient: Callable[[Tensor], Tensor]
) -> Tensor:
    """function(x), a linear map, whose gradient is another one: nothing is saved for it."""
    return _Adjoint.apply(x, function, gradient)  # type: ignore[no-any-return]


def affine_forward(affine: AffineMap, x: Tensor) -> Tensor:
    """W x + b, differentiable: [N, *input] -> [N, *output]."""
    return adjoint(x, affine.apply, affine.transpose) + affine.bias(x.dtype)


def affine_interval(affine: AffineMap, x: Interval) -> Interval:
    """IBP through centre and radius, two products instead of four; the sums come with it."""
    bias, size = affine.bias(x.lower.dtype), x.size
    middle, reach = x.ball
    centre = affine.apply(middle).add_(bias)
    radius, sums = affine.magnitude(torch.cat((reach, size))).chunk(2)
    sums = sums + bias.abs()
    lower, upper = enclosed(centre, radius, sums, affine.terms.forward)
    return Interval(lower, upper, sums.flatten(1), floor(size, affine.terms.longest))


def affine_backward(affine: AffineMap, rows: Tensor) -> tuple[Tensor, Tensor]:
    """A W and A b, differentiable: A [S, B, *output] -> [S, B, *input], [S, B]."""
    return _AffineBackward.apply(rows, affine)  # type: ignore[no-any-return]


def narrow_backward(affine: LinearMap, rows: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """`affine_backward` of rows [S, B, outputs] that are zero, and need no gradient, but at some
    outputs [n].
    """
    return _NarrowBackward.apply(rows, affine, outputs)  # type: ignore[no-any-return]


def bias_product(rows: Tensor, bias: Tensor) -> Tensor:
    """A b: A [S, B, channels, *image] or [S, B, neurons] and b of one value each -> [S, B]; of an
    image in float64, as many values of it meet one of b.
    """
    if rows.dim() == 3:
        return rows @ bias
    return rows.flatten(3).sum(3, dtype=LEDGER) @ bias.reshape(-1).to(LEDGER)


class _AffineBackward(torch.autograd.Function):
    """A -> A W, A b, whose adjoint is x, c -> W x + c b. One step of autograd, not eight."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, affine: AffineMap) -> tuple[Tensor, Tensor]:
        ctx.affine = affine  # type: ignore[attr-defined]
        constant = bias_product(rows, affine.bias(rows.dtype))
        product = affine.transpose(rows.flatten(0, 1))
        return product.unflatten(0, rows.shape[:2]), constant

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        of_product, of_constant = gradients
        affine: AffineMap = ctx.affine
        x = affine.apply(of_product.flatten(0, 1).contiguous())
        x = x.unflatten(0, of_constant.shape)
        bias, of_constant = affine.bias(x.dtype), of_constant.to(x.dtype)
        return x + of_constant.reshape(*of_constant.shape, *(1,) * bias.dim()) * bias, None


class _NarrowBackward(torch.autograd.Function):
    """As `_AffineBackward`, for the outputs alone at which rows are not zero."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: Tensor, affine: LinearMap, outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.affine, ctx.shape = affine, rows.shape  # type: ignore[attr-defined]
        ctx.save_for_backward(outputs)
        some = rows.index_select(2, outputs)
        constant = bias_product(some, affine.bias(rows.dtype)[outputs])
        product = affine.transpose_at(some.flatten(0, 1), outputs)
        return product.unflatten(0, rows.shape[:2]), constant

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        of_product, of_constant = gradients
        (outputs,) = ctx.saved_tensors
        affine: LinearMap = ctx.affine
        x = affine.apply_at(of_product.flatten(0, 1).contiguous(), outputs)
        bias = affine.bias(x.dtype)[outputs]
        some = x.unflatten(0, of_constant.shape) + of_constant.to(x.dtype).unsqueeze(2) * bias
        return some.new_zeros(ctx.shape).index_copy_(2, outputs, some), None, None


class _Adjoint(torch.autograd.Function):
    """A linear map whose gradient is another one; nothing is saved for it."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        function: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
    ) -> Tensor:
        ctx.adjoint = adjoint  # type: ignore[attr-defined]
        return function(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.adjoint(gradients[0].contiguous()), None, None


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
