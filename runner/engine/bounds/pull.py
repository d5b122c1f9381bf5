"""What the limits of a node's values add to a bound: a Lagrange multiplier of either sign (β).

With lower <= x <= upper, A x >= (A - b) x + b lower for b >= 0, and (A - b) x + b upper for b <= 0.
That is worth something where the lines behind x know less of it than these limits: where a
sub-domain was cut.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runner.engine.bounds.rounding import LEDGER

# Of a constant of the limits, in float64: what its sum, and all sums it becomes part of, may lose.
_ROOM = 2.0**-40


class Pull:
    """Of neurons `at` [V] of a node, flat: their limits lower and upper [B, V]; b [S, B, V]."""

    def __init__(self, at: Tensor, lower: Tensor, upper: Tensor, b: Tensor) -> None:
        self._at = at
        self._limits = lower, upper
        self._b = b

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[S, B, *shape] to rows and constants [S, B]."""
        found, constant = _Pull.apply(rows.flatten(2), self._b, *self._limits, self._at)
        return found.reshape(rows.shape), constant


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, b: Tensor, lower: Tensor, upper: Tensor, at: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(b, lower, upper, at)
        limit = torch.where(b > 0, lower, upper).to(LEDGER)
        parts = b.to(LEDGER) * torch.where(b == 0, 0.0, limit)
        constant = parts.sum(2) - parts.abs().sum(2) * _ROOM
        return rows.index_add(2, at, b, alpha=-1), constant

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of a coefficient is the value of x where the bound is taken; a multiplier
        that is 0 stays so as long as that lies between the limits.
        """
        b, lower, upper, at = ctx.saved_tensors
        of_rows, of_constant = gradients
        of_b = None
        if ctx.needs_input_grad[1]:
            x, weight = of_rows.index_select(2, at), of_constant.to(b).unsqueeze(2)
            inside = torch.minimum(torch.maximum(x, weight * lower), weight * upper)
            limit = torch.where(b == 0, inside, weight * torch.where(b > 0, lower, upper))
            of_b = limit - x
        return of_rows, of_b, None, None, None
