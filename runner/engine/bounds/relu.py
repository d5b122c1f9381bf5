"""The ReLU relaxation for lower bounds (CROWN, Zhang et al. 2018; α: Xu et al. 2021).

Only lower bounds are propagated: an upper bound of x is minus a lower bound of -x. A positive
coefficient takes the lower line `slope * x`, a negative one the upper line through (l, 0), (u, u),
rounded outwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.rounding import relu_line, summed

# Of a layer's neurons: where no more can be other than zero, products leave out the rest.
ALIVE_SHARE = 0.5


@dataclass(frozen=True)
class ReluLines:
    """CROWN's two lines of every neuron of every box, [B, n]."""

    lower_slope: Tensor
    upper_slope: Tensor
    upper_bias: Tensor

    @staticmethod
    def over(before: Interval) -> ReluLines:
        lower, upper = before.lower.flatten(1), before.upper.flatten(1)
        stable = (lower >= 0).to(lower.dtype)
        crossing = (lower < 0) & (upper > 0)
        # Where it is stable, that is the slope of the function itself.
        adaptive = (upper + lower > 0).to(lower.dtype)
        return ReluLines(adaptive, *relu_line(lower, upper, crossing, stable))

    def select(self, box: Tensor) -> ReluLines:
        return ReluLines(
            self.lower_slope.index_select(0, box),
            self.upper_slope.index_select(0, box),
            self.upper_bias.index_select(0, box),
        )

    @property
    def alive(self) -> Tensor:
        """Flat neurons [k] that are not inactive in every box."""
        return self.upper_slope.any(0).nonzero()[:, 0]

    def at(self, neurons: Tensor) -> ReluLines:
        return ReluLines(
            self.lower_slope.index_select(1, neurons),
            self.upper_slope.index_select(1, neurons),
            self.upper_bias.index_select(1, neurons),
        )

    def backward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        flat = rows.flatten(2)
        positive = flat.clamp(min=0)
        negative = flat - positive
        # One of the two is 0, so that each coefficient is rounded once.
        result = positive.mul_(self.lower_slope).addcmul_(negative, self.upper_slope)
        return result.reshape(rows.shape), summed(negative.mul_(self.upper_bias))


class ReluRelaxation:
    """Lines over one box of pre-activations, kept for the unstable neurons only.

    `unstable`: [U], flat neurons that are unstable in some domain of the batch. Slopes of the
    lower line are [S, B, U] or broadcast to it; α is such a tensor, in [0, 1].
    """

    def __init__(self, before: Interval) -> None:
        batch = before.lower.shape[0]
        lower, upper = before.lower.reshape(batch, -1), before.upper.reshape(batch, -1)
        crossing = (lower < 0) & (upper > 0)
        self.unstable = crossing.any(0).nonzero()[:, 0]
        # Stable neurons, where both lines are the function itself: slope 1 or 0.
        self._slope = (lower >= 0).to(lower.dtype)
        lower, upper = lower[:, self.unstable], upper[:, self.unstable]
        self._crossing = crossing[:, self.unstable]
        self._everywhere = bool(self._crossing.all())
        stable = self._slope[:, self.unstable]
        self._upper_slope, self._upper_bias = relu_line(lower, upper, self._crossing, stable)
        # Where it is stable, that is the slope of the function itself.
        self.adaptive = (upper + lower > 0).to(lower.dtype)

    @cached_property
    def alive(self) -> Tensor | None:
        """Flat neurons that are not inactive everywhere; None: nearly all of them."""
        return alive_of((self._slope != 0).any(0), self.unstable)

    @cached_property
    def whole(self) -> ReluLines:
        """CROWN's lines of all neurons."""
        at = self.unstable
        return ReluLines(
            self._slope.index_copy(1, at, self.adaptive),
            self._slope.index_copy(1, at, self._upper_slope),
            torch.zeros_like(self._slope).index_copy(1, at, self._upper_bias),
        )

    def initial_slopes(self, rows: int) -> Tensor:
        """α before its first step: CROWN's adaptive choice, a copy for every row, [S, B, U]."""
        return self.adaptive.expand(rows, *self.adaptive.shape).clone()

    def backward(self, rows: Tensor, slopes: Tensor | None) -> tuple[Tensor, Tensor]:
        """A after ReLU -> A before it and the constant: [S, B, n] -> [S, B, n], [S, B]."""
        if slopes is None:
            slopes = self.adaptive
        elif not self._everywhere:
            # In a domain where the neuron is stable, the function itself is the only line.
            slopes = torch.where(self._crossing, slopes, self.adaptive)
        lines = (self._slope, self._upper_slope, self._upper_bias, self.unstable)
        return _Relu.apply(rows, slopes, *lines)  # type: ignore[no-any-return]


def alive_of(active: Tensor, unstable: Tensor) -> Tensor | None:
    """Flat neurons of those [n] that are active or unstable; None where leaving out the others
    would not pay.
    """
    alive = active.index_fill(0, unstable, True).nonzero()[:, 0]
    return alive if len(alive) <= ALIVE_SHARE * len(active) else None


class _Relu(torch.autograd.Function):
    """A' = A⁺ · lower slope + A⁻ · upper slope; saves the unstable columns of A and no others."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        rows: Tensor,
        slopes: Tensor,
        slope: Tensor,
        upper_slope: Tensor,
        upper_bias: Tensor,
        unstable: Tensor,
    ) -> tuple[Tensor, Tensor]:
        at = rows.index_select(2, unstable)
        positive = at.clamp(min=0)
        negative = at - positive
        constant = summed(negative * upper_bias)
        # One of the two is 0, so that each coefficient is rounded once.
        changed = (positive * slopes).addcmul_(negative, upper_slope)
        result = (rows * slope).index_copy_(2, unstable, changed)
        ctx.save_for_backward(at, slopes, slope, upper_slope, upper_bias, unstable)
        return result, constant

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        at, slopes, slope, upper_slope, upper_bias, unstable = ctx.saved_tensors
        of_result, of_constant = gradients
        of_at = of_result.index_select(2, unstable)
        of_slopes = of_rows = None
        if ctx.needs_input_grad[1]:
            of_slopes = of_at * at.clamp(min=0)
        if ctx.needs_input_grad[0]:
            downward = torch.addcmul(of_constant.unsqueeze(2) * upper_bias, of_at, upper_slope)
            change = torch.where(at > 0, of_at * slopes, downward)
            of_rows = (of_result * slope).index_copy_(2, unstable, change)
        return of_rows, of_slopes, None, None, None, None
