"""What a softmax divides by: for each value x of a group, the sum of exp(other - x) over the group.

exp of each difference lies between a tangent and a chord (runner.engine.bounds.curves), that of a
value with itself is 1. So the lines of all sums of a group are two matrices, and A passes as a
product with either. That product is charged with the node's sums. Rows may choose a tangent of
each difference instead, as of any function (runner.engine.bounds.bundles).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.engine.bounds import curves
from runner.engine.bounds.bundles import bundle
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.mixed import MixedRelaxation
from runner.engine.bounds.rounding import (
    COEFFICIENT_ROUNDINGS,
    enclosed_between,
    floor,
    outwards,
    summands,
    summed,
)
from runner.engine.network.graph import Node, Op


def terms(node: Node, dtype: torch.dtype) -> int:
    """Of a sum over A, of one over a line's slopes, and of the constants."""
    return 2 * node.shape[1] + summands(node.size, dtype) + COEFFICIENT_ROUNDINGS


def interval(node: Node, before: Interval) -> Interval:
    """Of the sums, with those that passes are charged for: no slope is steeper than the greatest
    exponential.
    """
    lower, upper = (_with_itself(end, 1.0) for end in curves.interval(Op.EXP, *_between(before)))
    size, count = before.size, node.shape[1]
    pairs = size.unsqueeze(-1) + size.unsqueeze(-2) + 1
    sums = (upper * pairs).sum(-1)
    total = upper.sum(-1)
    least = floor(size, terms(node, size.dtype))
    ends = enclosed_between(lower.sum(-1), total, total, count)
    return Interval(*ends, sums.flatten(1), least)


@dataclass(frozen=True)
class ExpSumsRelaxation:
    """Coefficients [B, groups, count, count] of each value in each sum, and offsets [B, groups,
    count]; below and above.
    """

    lower_slopes: Tensor
    lower_offset: Tensor
    upper_slopes: Tensor
    upper_offset: Tensor
    pairs: MixedRelaxation

    def initial(self, rows: int) -> Tensor:
        return self.pairs.initial(rows)

    def backward(self, A: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Parameters [S, B, groups * count * count]."""
        if parameters is not None:
            return self._of_pairs(A, parameters)
        positive, negative = A.clamp(min=0), A.clamp(max=0)
        bias = positive * self.lower_offset + negative * self.upper_offset
        signs = torch.cat((positive, negative), -1)
        slopes = torch.cat((self.lower_slopes, self.upper_slopes), -2)
        return torch.einsum("sbgi,bgij->sbgj", signs, slopes), summed(bias.flatten(2))

    def _of_pairs(self, A: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Line by line; a value with itself has no part in it, and adds 1."""
        count = A.shape[-1]
        wide = _with_itself(A.unsqueeze(-1).expand(*A.shape, count), 0.0)
        found, bias = self.pairs.backward(wide, parameters)
        return found.sum(-2) - found.sum(-1), bias + summed(A.flatten(2))


def relax(node: Node, before: Interval) -> ExpSumsRelaxation:
    """Over bounds [B, groups, count] of the values."""
    ends = _between(before)
    lines = curves.relax(Op.EXP, *ends)
    return ExpSumsRelaxation(
        _of_values(lines.lower_slope),
        _summed_offset(lines.lower_offset, -1),
        _of_values(lines.upper_slope),
        _summed_offset(lines.upper_offset, 1),
        MixedRelaxation(lambda: lines, lambda: bundle(replace(node, op=Op.EXP), *ends)),
    )


def _between(before: Interval) -> tuple[Tensor, Tensor]:
    """Of all differences [B, groups, count, count]."""
    lower = before.lower.unsqueeze(-2) - before.upper.unsqueeze(-1)
    upper = before.upper.unsqueeze(-2) - before.lower.unsqueeze(-1)
    return outwards(lower, upper)


def _with_itself(of_pairs: Tensor, value: float) -> Tensor:
    mine = torch.eye(of_pairs.shape[-1], dtype=torch.bool, device=of_pairs.device)
    return of_pairs.masked_fill(mine, value)


def _of_values(slopes: Tensor) -> Tensor:
    """Of each other value its slope, of the value itself less all of them."""
    others = _with_itself(slopes, 0.0)
    return others - torch.diag_embed(others.sum(-1))


def _summed_offset(offsets: Tensor, side: int) -> Tensor:
    """Downwards (-1) or upwards (1), with room for the sum that it becomes part of, once more."""
    of_each = _with_itself(offsets, 1.0)
    sums = of_each.sum(-1)
    ends = enclosed_between(sums, sums, of_each.abs().sum(-1), of_each.shape[-1] + 2)
    return ends[0] if side < 0 else ends[1]
