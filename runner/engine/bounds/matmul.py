"""Products of two computed matrices: planes around each x y over a box (McCormick 1976).

(x - c) (y - d) lies within r s of 0, where c, d are the centres and r, s the radii: x y is within
r s of d x + c y - c d. These are the slopes and offsets of runner.engine.bounds.product, but as
the slopes of x do not depend on its row, nor those of y on its column, A passes as two products of
matrices, and what is off is one: R S. Products of A are charged with the node's sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.rounding import (
    COEFFICIENT_ROUNDINGS,
    enclosed_between,
    floor,
    gamma,
    half_width,
    smallest,
    summands,
    summed,
)
from runner.engine.network.evaluate import matmul_sizes, matrices
from runner.engine.network.graph import Node

# Of |x| |y|: what |d x|, |c y|, |c d| and r s are at most, together.
_PARTS = 4


def terms(node: Node, dtype: torch.dtype) -> int:
    """Of the longest sum of A, and of the constants."""
    _, rows, _, columns = matmul_sizes(node)
    return max(rows, columns) + summands(node.size, dtype)


def interval(node: Node, before: Interval) -> Interval:
    """Of the products, with the sums that passes are charged for."""
    length = matmul_sizes(node)[2]
    x, y = (matrices(node, end) for end in (before.lower, before.upper))
    # [..., rows, 1, length] and [..., 1, columns, length]
    ends = [
        (first.unsqueeze(-2), second.mT.unsqueeze(-3))
        for first, second in ((x[0], x[1]), (x[0], y[1]), (y[0], x[1]), (y[0], y[1]))
    ]
    corners = torch.stack([first * second for first, second in ends])
    size = before.size
    first, second = matrices(node, size)
    sums = first @ second
    # Infinity times zero is no number, and says nothing.
    lower, upper = enclosed_between(
        corners.amin(0).sum(-1), corners.amax(0).sum(-1), sums, length + 1
    )
    # Underflow in the constants of a pass as well, of which there may be more than inputs.
    least = floor(size, terms(node, size.dtype) + length) + 4 * node.size * smallest(size.dtype)
    return Interval(lower, upper, (_PARTS * sums).flatten(1), least)


@dataclass(frozen=True)
class MatmulRelaxation:
    """c of x [B, batch, rows, length] and d of y [B, batch, length, columns]; offsets [B, batch,
    rows, columns] below and above.
    """

    first: Tensor
    second: Tensor
    below: Tensor
    above: Tensor

    def backward(self, A: Tensor) -> tuple[Tensor, Tensor]:
        bias = A.clamp(min=0) * self.below + A.clamp(max=0) * self.above
        of_first = torch.einsum("sbkij,bkdj->sbkid", A, self.second)
        of_second = torch.einsum("sbkij,bkid->sbkdj", A, self.first)
        both = torch.cat((of_first.flatten(2), of_second.flatten(2)), 2)
        return both, summed(bias.flatten(2))


def relax(node: Node, before: Interval) -> MatmulRelaxation:
    """Over bounds [B, values] of its input."""
    centre = before.centre
    centre = torch.where(centre.isfinite(), centre, 0.0)
    radius = half_width(before.lower, before.upper, centre)
    first, second = matrices(node, centre)
    r, s = matrices(node, radius)
    plane, reach = first @ second, r @ s
    dtype = plane.dtype
    sizes = first.abs() @ second.abs() + reach
    off = sizes * gamma(first.shape[-1] + COEFFICIENT_ROUNDINGS, dtype)
    # Room for the sum over all neurons that they become part of.
    room = gamma(summands(node.size, dtype) + COEFFICIENT_ROUNDINGS, dtype)
    off = off + (plane.abs() + reach) * room + first.shape[-1] * 8 * smallest(dtype)
    # Infinity times zero is no number: nothing is known then.
    reach = (reach + off).nan_to_num(nan=torch.inf, posinf=torch.inf)
    below, above = -plane - reach, reach - plane
    return MatmulRelaxation(first, second, below, above)
