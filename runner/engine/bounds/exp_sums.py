"""What a softmax divides by: for each value x of a group, the sum of exp(other - x) over the group.

exp of each difference lies between a tangent and a chord (runner.engine.bounds.curves), that of a
value with itself is 1. So the lines of all sums of a group are two matrices, and A passes as a
product with either. That product is charged with the node's sums. Rows may choose a tangent of
each difference instead, as of any function (runner.engine.bounds.bundles).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from runner.engine.bounds import curves
from runner.engine.bounds.bundles import bundle, bundle_where
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.mixed import Bundle, MixedRelaxation
from runner.engine.bounds.relaxation import ElementwiseRelaxation
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
    """`lines` of all differences [B, groups, count, count], and `pairs`, from which rows choose."""

    lines: Callable[[], ElementwiseRelaxation]
    pairs: MixedRelaxation

    def initial(self, rows: int) -> Tensor:
        return self.pairs.initial(rows)

    @cached_property
    def _sums(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coefficients [B, groups, count, count] of each value in each sum, and offsets [B, groups,
        count]; below and above.
        """
        lines = self.lines()
        return (
            _of_values(lines.lower_slope),
            _summed_offset(lines.lower_offset, -1),
            _of_values(lines.upper_slope),
            _summed_offset(lines.upper_offset, 1),
        )

    def backward(self, A: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Parameters [S, B, groups * count * count]."""
        if parameters is not None:
            return self._of_pairs(A, parameters)
        lower_slopes, lower_offset, upper_slopes, upper_offset = self._sums
        positive, negative = A.clamp(min=0), A.clamp(max=0)
        bias = positive * lower_offset + negative * upper_offset
        signs = torch.cat((positive, negative), -1)
        slopes = torch.cat((lower_slopes, upper_slopes), -2)
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
    return _relaxation(ends, lambda: bundle(_exp(node), *ends))


def relax_where(
    node: Node, whole: ExpSumsRelaxation, root: Interval, before: Interval
) -> ExpSumsRelaxation:
    """Over B parts of a box with bounds `root` [1, groups, count], whose relaxation is `whole`:
    differences that are no narrower in a part have the same lines there.
    """
    ends, others = _between(before), _between(root)
    changed = (ends[0] != others[0]) | (ends[1] != others[1])
    pairs = whole.pairs.bundle
    return _relaxation(ends, lambda: bundle_where(_exp(node), pairs, *ends, changed.flatten(1)))


def _relaxation(ends: tuple[Tensor, Tensor], make: Callable[[], Bundle]) -> ExpSumsRelaxation:
    def lines() -> ElementwiseRelaxation:
        return curves.relax(Op.EXP, *ends)

    return ExpSumsRelaxation(lines, MixedRelaxation(lines, make))


def _exp(node: Node) -> Node:
    """Of the differences."""
    return replace(node, op=Op.EXP)


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
