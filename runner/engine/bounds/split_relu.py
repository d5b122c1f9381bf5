"""A ReLU in sub-domains where some neurons are split (β-CROWN, Wang et al. 2021).

A neuron that is unstable in the root has one multiplier per row: while it is not split, the slope
α of its lower line; once it is split, β of the constraint that its input keeps its sign, in units
of `scale`. No neuron needs both, so one tensor holds both, and for unstable neurons only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from runner.engine.bounds.planes import Above
from runner.engine.bounds.relu import alive_of
from runner.engine.bounds.rounding import relu_line, summed
from runner.engine.bounds.space import Splittable


@dataclass(frozen=True)
class SplitNode(Splittable):
    """The unstable neurons before one ReLU node. `slope` [n]: of the function itself where it is
    stable.
    """

    slope: Tensor

    @cached_property
    def alive(self) -> Tensor | None:
        """As of `ReluRelaxation`, of this rank's own columns."""
        return alive_of(self.slope != 0, self.at)

    def to(self, dtype: torch.dtype) -> SplitNode:
        return replace(self, slope=self.slope.to(dtype))


class SplitRelaxation:
    """A ReLU node over B sub-domains: this rank's unstable neurons' input is in lower to upper
    [B, V], cut at zero where a neuron is split; phases [B, V]; scale [V] of β.

    `probe` [2, K, B, V]: counts for nothing; its gradient is the neurons' inputs and outputs where
    the relaxation attains the bound.
    """

    def __init__(
        self,
        node: SplitNode,
        lower: Tensor,
        upper: Tensor,
        phases: Tensor,
        scale: Tensor,
        above: Above | None = None,
        probe: Tensor | None = None,
    ) -> None:
        self._node = node
        self._probe = probe
        self._above = above
        crossing = (lower < 0) & (upper > 0)
        self._free = crossing.to(lower.dtype)
        self._fixed = (lower >= 0).to(lower.dtype)
        self._upper_slope, self._upper_bias = relu_line(lower, upper, crossing, self._fixed)
        self._pull = phases * -scale
        self._shared = None if above is None else above.shared(self._free)

    @property
    def alive(self) -> Tensor | None:
        return self._node.alive

    def backward(self, rows: Tensor, multipliers: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """A after ReLU -> A before it and the constant: [K, B, n] -> [K, B, n], [K, B]; and, where
        there are planes, what they make of the network's input [K, B, inputs], of own neurons.

        multipliers: [K, B, V].
        """
        result, constant, given = _SplitRelu.apply(
            rows,
            multipliers,
            self._node.slope,
            self._free,
            self._fixed,
            self._upper_slope,
            self._upper_bias,
            self._pull,
            self._node.at,
            self._shared,
            self._probe,
        )
        if self._above is None:
            return result, constant, None
        of_input, added = self._above.passed(given)
        return result, constant + added, of_input

    def charge(self, rows: Tensor) -> Tensor | None:
        """What rounding costs A [K, B, n] beside the products of the next node: [K, B]."""
        if self._above is None or self._shared is None:
            return None
        return self._above.charge(rows.index_select(2, self._node.at).clamp(max=0) * self._shared)


class _SplitRelu(torch.autograd.Function):
    """A' = A⁺ · lower slope + A⁻ · upper slope - β · sign; saves unstable columns of A only.

    With multiplier m, the lower slope is fixed + free · m, and -β · sign is pull · m. Where neurons
    have planes (shared is 1), the share m of A⁻ is given to them, and the rest goes on as it does.
    The gradient of a bound by a coefficient is a value where the bound is attained.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        multipliers: Tensor,
        slope: Tensor,
        free: Tensor,
        fixed: Tensor,
        upper_slope: Tensor,
        upper_bias: Tensor,
        pull: Tensor,
        at: Tensor,
        shared: Tensor | None,
        probe: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        columns = rows.index_select(2, at)
        positive = columns.clamp(min=0)
        negative, given = columns - positive, None
        if shared is not None:
            given = (negative * multipliers).mul_(shared)
            negative -= given
        constant = summed(negative * upper_bias)
        changed = torch.addcmul(fixed, free, multipliers).mul_(positive)
        changed.addcmul_(negative, upper_slope).addcmul_(pull, multipliers)
        result = (rows * slope).index_copy_(2, at, changed)
        ctx.save_for_backward(
            columns, multipliers, slope, free, fixed, upper_slope, upper_bias, pull, at, shared
        )
        return result, constant, given

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        columns, multipliers, slope, free, fixed, upper_slope, upper_bias, pull, at, shared = (
            ctx.saved_tensors
        )
        of_result, of_constant, of_given = gradients
        of_columns = of_result.index_select(2, at)
        downward = torch.addcmul(of_constant.unsqueeze(2) * upper_bias, of_columns, upper_slope)
        gains = None if shared is None else (of_given - downward).mul_(shared)
        of_multipliers = of_rows = of_probe = None
        if ctx.needs_input_grad[1]:
            of_multipliers = torch.addcmul(pull, columns.clamp(min=0), free).mul_(of_columns)
            if gains is not None:
                of_multipliers.addcmul_(columns.clamp(max=0), gains)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[10]:
            upward = torch.addcmul(fixed, free, multipliers).mul_(of_columns)
            if gains is not None:
                downward = torch.addcmul(downward, gains, multipliers)
            of_own = torch.where(columns > 0, upward, downward)
            if ctx.needs_input_grad[0]:
                of_rows = (of_result * slope).index_copy_(2, at, of_own)
            if ctx.needs_input_grad[10]:
                of_probe = torch.stack((of_columns, of_own))
        return of_rows, of_multipliers, *(None,) * 8, of_probe
