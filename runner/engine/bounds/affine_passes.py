"""What passes do with a Linear or Conv: forward, by intervals, and backward, all differentiable.

`forward` (x -> W x) and `transpose` (A -> A W) are each other's gradient, so neither PGD nor
α-CROWN keeps a weight in its autograd graph: a block comes again when the gradient needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from runner.engine.bounds.affine import AffineMap, LinearMap
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.rounding import LEDGER, enclosed, floor


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
