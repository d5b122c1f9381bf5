"""Linear relaxations of the operators beside the driver's hot path: MAXPOOL, SIGMOID, TANH."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.engine.bounds.rounding import (
    COEFFICIENT_ROUNDINGS,
    gamma,
    outwards,
    summands,
    summed,
    unit,
)
from runner.engine.network.graph import Node, Op


class Relaxation(Protocol):
    """Lines around f(x) for every x between bounds."""

    def backward(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """A [S, B, *out_shape] to A_in [S, B, *in_shape] and bias [S, B].

        A · f(x) >= A_in · x + bias for every x between the bounds; differentiable in A.
        """


# Roundings of a computed sigmoid or tanh: the vector mathematics of torch err by an ulp or two in
# exp and tanh, and sigmoid adds a sum and a quotient.
FUNCTION_ROUNDINGS = 8


def interval(node: Node, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of f(x), [B, *out_shape], from bounds of x, [B, *in_shape]; f is monotone."""
    function = _function(node)
    if node.op is Op.MAXPOOL:
        return function(lower), function(upper)
    return outwards(function(lower), function(upper), FUNCTION_ROUNDINGS)


def relax(node: Node, lower: Tensor, upper: Tensor) -> Relaxation:
    """The relaxation of a MAXPOOL, SIGMOID or TANH node over lower <= x <= upper.

    lower, upper: [B, *in_shape], float32 or float64.
    """
    if node.op is Op.MAXPOOL:
        return _relax_maxpool(node, lower, upper)
    return _relax_s_shape(node, lower, upper)


def _function(node: Node) -> Callable[[Tensor], Tensor]:
    match node.op:
        case Op.SIGMOID:
            return torch.sigmoid
        case Op.TANH:
            return torch.tanh
        case Op.MAXPOOL:
            return lambda x: F.max_pool2d(x, *_window(node))
    raise ValueError(f"{node.op} has no relaxation here")


@dataclass(frozen=True)
class ElementwiseRelaxation:
    """slope * x + offset below and above f(x), all [B, *shape]."""

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor

    def select(self, index: Tensor) -> ElementwiseRelaxation:
        """Of some boxes."""
        return ElementwiseRelaxation(
            self.lower_slope.index_select(0, index),
            self.lower_offset.index_select(0, index),
            self.upper_slope.index_select(0, index),
            self.upper_offset.index_select(0, index),
        )

    def backward(self, A: Tensor) -> tuple[Tensor, Tensor]:
        positive, negative = A.clamp(min=0), A.clamp(max=0)
        bias = positive * self.lower_offset + negative * self.upper_offset
        return positive * self.lower_slope + negative * self.upper_slope, summed(bias.flatten(2))


# auto_LiRPA's tangents end here; both functions are constant in floating point far before.
_TABLE_END = 500.0


def _relax_s_shape(node: Node, lower: Tensor, upper: Tensor) -> ElementwiseRelaxation:
    """auto_LiRPA's slopes with offsets of our own.

    Its offsets are good to float32 only, and wrong by up to 0.9 beyond its table; where f(x) -
    slope * x has its extremes is known, so no slope can be unsound. Offsets are moved out by the
    rounding of these extremes (`_rounding`).
    """
    # Importing auto_LiRPA takes a quarter of a second, which networks without these nodes save.
    from runner.engine.network.lirpa import s_shape_slopes

    within = (lower >= -_TABLE_END) & (upper <= _TABLE_END)
    inner = lower.clamp(-_TABLE_END, _TABLE_END), upper.clamp(-_TABLE_END, _TABLE_END)
    below, above = (
        torch.where(within, slope, 0.0).clamp(min=0) for slope in s_shape_slopes(node.op, *inner)
    )
    # Beyond the table slopes are 0, and the extremes of f itself are at the ends.
    least = _gaps(node, below, lower, upper).amin(0) - _rounding(below, lower, upper)
    most = _gaps(node, above, lower, upper).amax(0) + _rounding(above, lower, upper)
    # Room for the sum over all neurons that they become part of.
    room = gamma(summands(least[0].numel(), least.dtype) + COEFFICIENT_ROUNDINGS, least.dtype)
    least, most = least - least.abs() * room, most + most.abs() * room
    return ElementwiseRelaxation(below, least, above, most)


def _rounding(slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Of f(x) - slope * x at an end or where f has that slope.

    The values are at most 1 and |slope * x|, each with a few roundings. Where f has the slope is
    found as p' with an error d: the value there is off by at most d² / 2 times the greatest second
    derivative, as the first is 0. p(r) of the relative slope r is stretch * arcosh(r^(-1/2)), whose
    derivative stretch / (2 r (1 - r)^(1/2)) grows near 1, but moving r by k u moves p by no more
    than stretch * (k u)^(1/2), and by k u relatively elsewhere; the derivative's bound is 0.77 for
    tanh (stretch 1) and 0.097 for sigmoid (stretch 2): with k = 16, off by less than 8 u.
    """
    ulp = unit(slope.dtype)
    return 32 * ulp + 8 * ulp * slope * torch.maximum(lower.abs(), upper.abs()).nan_to_num(0.0)


def _gaps(node: Node, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """f(x) - slope * x at the ends and wherever f has that slope in between: [4, *shape]."""
    function = _function(node)
    # tanh'(x) = sech²(x), and sigmoid(x) = (1 + tanh(x / 2)) / 2 is tanh on another scale.
    stretch, steepest = (1.0, 1.0) if node.op is Op.TANH else (2.0, 0.25)
    relative = (slope / steepest).clamp(0, 1)
    tangent = stretch * torch.log((1 + (1 - relative).sqrt()) / relative.sqrt())
    points = torch.stack(
        (lower, upper, tangent.clamp(lower, upper), (-tangent).clamp(lower, upper))
    )
    # Where bounds are infinite the slope is 0.
    return function(points) - torch.where(slope == 0, 0.0, slope * points)


@dataclass(frozen=True)
class MaxPoolRelaxation:
    """One input of each window below the maximum; above, the same input or a constant.

    winner: [B, outputs], the index in the flat input of the largest lower bound; exact: [B,
    outputs], whether no other input can exceed it; constant: [B, outputs], the maximum's upper
    bound, 0 where exact; rounding: [B, outputs], what sums of coefficients and constants may lose.
    """

    in_shape: torch.Size
    winner: Tensor
    exact: Tensor
    constant: Tensor
    rounding: Tensor

    def backward(self, A: Tensor) -> tuple[Tensor, Tensor]:
        A = A.flatten(2)
        positive, negative = A.clamp(min=0), A.clamp(max=0)
        coefficients = positive + negative * self.exact
        A_in = A.new_zeros(*A.shape[:2], self.in_shape.numel())
        A_in = A_in.scatter_add(2, self.winner.expand_as(A), coefficients)
        bias = summed(negative * (self.constant + self.rounding) - positive * self.rounding)
        return A_in.reshape(*A.shape[:2], *self.in_shape), bias


@dataclass(frozen=True)
class Pooled:
    """Of each window [B, outputs]: `winner`, the index in the flat input of the input with the
    greatest lower bound, `least`; the greatest upper bounds of all and of the `others`; how large
    the winner may be in absolute value. `inputs`: of a window.
    """

    winner: Tensor
    least: Tensor
    most: Tensor
    others: Tensor
    of_winner: Tensor
    inputs: int


def pooled(node: Node, lower: Tensor, upper: Tensor) -> Pooled:
    """Of a MAXPOOL over bounds of its input."""
    lowers, uppers = _windows(node, lower), _windows(node, upper)
    positions = torch.arange(lower[0].numel(), dtype=torch.float64, device=lower.device)
    indices = _windows(node, positions.reshape(1, *lower.shape[1:])).clamp(min=0).long()
    largest, winner = lowers.max(dim=2, keepdim=True)
    least, others = largest.squeeze(2), uppers.scatter(2, winner, -torch.inf).amax(2)
    of_winner = torch.maximum(least.abs(), uppers.gather(2, winner).squeeze(2).abs())
    at = indices.expand_as(lowers).gather(2, winner)
    most = uppers.amax(2)
    at, least, most, others, of_winner = (
        part.flatten(1) for part in (at, least, most, others, of_winner)
    )
    return Pooled(at, least, most, others, of_winner, lowers.shape[2])


def _relax_maxpool(node: Node, lower: Tensor, upper: Tensor) -> MaxPoolRelaxation:
    """Not auto_LiRPA's, which knows neither float64 nor padding nor overlapping windows."""
    found = pooled(node, lower, upper)
    exact = found.least >= found.others
    # An input may win in every window that holds it, and all outputs' constants are one sum.
    terms = found.inputs + summands(exact[0].numel(), lower.dtype) + COEFFICIENT_ROUNDINGS
    rounding = (found.of_winner + found.most.abs()) * gamma(terms, lower.dtype)
    return MaxPoolRelaxation(
        lower.shape[1:],
        found.winner,
        exact,
        torch.where(exact, 0.0, found.most),
        rounding,
    )


def _window(node: Node) -> tuple[Any, Any, Any]:
    return node.attributes["kernel"], node.attributes["stride"], node.attributes["padding"]


def _windows(node: Node, x: Tensor) -> Tensor:
    """[B, C, H, W] to [B, C, kernel, windows]; -inf where a window sees padding."""
    kernel, stride, (rows, columns) = _window(node)
    padded = F.pad(x, (columns, columns, rows, rows), value=-torch.inf)
    # A channel at a time: a rank may have none, and torch unfolds no image without channels.
    unfolded = F.unfold(padded.flatten(0, 1).unsqueeze(1), kernel, stride=stride)
    return unfolded.reshape(*x.shape[:2], *unfolded.shape[1:])
