"""Products of two computed matrices: planes around each x y over a box (McCormick 1976).

(x - c) (y - d) lies within r s of 0, where c, d are the centres and r, s the radii: x y is within
r s of d x + c y - c d. These are the slopes and offsets of runner.engine.bounds.product, but as
the slopes of x do not depend on its row, nor those of y on its column, A passes as two products of
matrices, and what is off is one: R S. Products of A are charged with the node's sums.

McCormick's other planes turn around the same box: with u = x - c, v = y - d and any t in [-1, 1],
x y - d x - c y + c d = u v lies above t (s u + r v) - r s and below t (s u - r v) + r s. Rows
choose a t for each product; 0 is the plane of the centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    """Of the longest sum of A, and of the constants; and of a parameter's products."""
    batch, rows, length, columns = matmul_sizes(node)
    constants = batch * max(rows * columns, rows * length, length * columns)
    return max(rows, columns, length) + COEFFICIENT_ROUNDINGS + summands(constants, dtype)


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
    # Underflow in the constants of a pass as well, of which there may be more than inputs, and of
    # parameters, before they are multiplied with values.
    of_values = node.size + 2 * sums.flatten(1).sum(1)
    least = floor(size, terms(node, size.dtype) + length) + of_values * (4 * smallest(size.dtype))
    return Interval(lower, upper, (_PARTS * sums).flatten(1), least)


@dataclass(frozen=True)
class MatmulRelaxation:
    """c and r of x [B, batch, rows, length], d and s of y [B, batch, length, columns]; offsets [B,
    batch, rows, columns] below and above.
    """

    first: Tensor
    second: Tensor
    first_radius: Tensor
    second_radius: Tensor
    below: Tensor
    above: Tensor

    def initial(self, rows: int) -> Tensor:
        """The plane of the centre, for each product of two numbers."""
        batch, matrices, height, length = self.first.shape
        count = matrices * height * self.second.shape[3] * length
        return self.first.new_full((rows, batch, count), 0.5)

    def backward(self, A: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Parameters [S, B, batch * rows * columns * length]."""
        bias = summed((A.clamp(min=0) * self.below + A.clamp(max=0) * self.above).flatten(2))
        of_first = torch.einsum("sbkij,bkdj->sbkid", A, self.second)
        of_second = torch.einsum("sbkij,bkid->sbkdj", A, self.first)
        if parameters is not None:
            turned = _Turned.apply(A, parameters, *self._parts)
            of_first, of_second = of_first + turned[0], of_second + turned[1]
            bias = bias + turned[2]
        return torch.cat((of_first.flatten(3), of_second.flatten(3)), 3), bias

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is unbounded does not turn: its plane says nothing anyway."""
        parts = (self.first, self.second, self.first_radius, self.second_radius)
        first, second, r, s = (part.nan_to_num(0.0, 0.0, 0.0) for part in parts)
        return first, second, r, s


class _Turned(torch.autograd.Function):
    """What the parameters add to the plane of the centre: to A of x and of y, and to the bias.

    With w = A t and z = |A| t, summed over what is left out: w s to x, z r to y, and
    -(w c s + z d r) to the bias.
    """

    @staticmethod
    def forward(ctx: Any, A: Tensor, parameters: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(A, parameters, *parts)
        first, second, r, s = parts
        w = A.unsqueeze(-1) * _turn(A, parameters)
        z = w * A.sign().unsqueeze(-1)
        of_first = torch.einsum("sbkijd,bkdj->sbkid", w, s)
        of_second = torch.einsum("sbkijd,bkid->sbkdj", z, r)
        bias = summed((of_first * first).flatten(2)) + summed((of_second * second).flatten(2))
        return of_first, of_second, -bias

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """In `of_w` and `of_z` the bias counts as what its sums are of."""
        A, parameters, first, second, r, s = ctx.saved_tensors
        of_first, of_second, of_bias = gradients
        weight = of_bias[..., None, None, None]
        of_w = torch.einsum("sbkid,bkdj->sbkijd", of_first - weight * first, s)
        of_z = torch.einsum("sbkdj,bkid->sbkijd", of_second - weight * second, r)
        sign = A.sign().unsqueeze(-1)
        both = of_w + of_z * sign
        of_rows = of_parameters = None
        if ctx.needs_input_grad[1]:
            of_parameters = (both * (2 * A.unsqueeze(-1))).reshape(parameters.shape)
        if ctx.needs_input_grad[0]:
            of_rows = (both * _turn(A, parameters)).sum(-1)
        return of_rows, of_parameters, *(None,) * 4


def _turn(A: Tensor, parameters: Tensor) -> Tensor:
    """t: [S, B, batch, rows, columns, length], in [-1, 1] whatever an ascent has made of it."""
    return (2 * parameters.nan_to_num(0.5) - 1).clamp(-1, 1).reshape(*A.shape, -1)


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
    return MatmulRelaxation(first, second, r, s, below, above)
