"""How a form passes a relaxed node: between two parallel lines of its input (a *band*).

Slopes are those of the relaxations of the backward pass, half-way between its two lines where they
differ; what lies between is the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from runner.engine.bounds import product, relaxation
from runner.engine.bounds.form import Form
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.mixed import MixedRelaxation
from runner.engine.bounds.rounding import grown, outwards, relu_line, smallest, unit
from runner.engine.bounds.rule_kinds import RelaxedRule
from runner.engine.network.graph import Node, Op

# Each of these takes many values.
_WITHOUT = frozenset({Op.MATMUL, Op.EXP_SUMS})
# Of a slope times a value, of two of them, and of their sum with the middle.
_ROUNDINGS = 8


@runtime_checkable
class Lines(Protocol):
    """slope * x + offset below and above f(x), all [B, *shape]."""

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


@dataclass(frozen=True)
class Band:
    """f(z) - slopes · z lies in `rest` over the bounds of z.

    slopes: [B, *parts, *shape]; index: for each neuron the one flat input that it takes; parts: how
    many inputs each neuron has, side by side along a first dimension, otherwise.
    """

    slopes: Tensor
    rest: Interval
    index: Tensor | None = None
    parts: bool = False

    def taken(self, x: Tensor) -> Tensor:
        """The inputs [N, B, *input] that slopes belong to."""
        if self.index is None:
            return x
        flat = x.flatten(2).gather(2, self.index.expand(len(x), *self.index.shape))
        return flat.reshape(len(x), *self.slopes.shape)

    def sloped(self, slopes: Tensor, x: Tensor) -> Tensor:
        """[N, B, *input] to [N, B, *shape]."""
        taken = self.taken(x)
        if not self.parts:
            return taken * slopes
        return torch.addcmul(taken[:, :, 0] * slopes[:, 0], taken[:, :, 1], slopes[:, 1])


def relaxed(node: Node, rule: RelaxedRule, form: Form, before: Interval, after: Interval) -> Form:
    """Of a relaxed node, from its input's form and bounds; where a constant between its own bounds
    `after` is as near, that.
    """
    band = band_of(node, rule, before)
    if band is None:
        return Form.of(after)
    if node.op is not Op.RELU:
        form = form.without_patches()
    centre, radius = after.ball
    radius = radius.clamp(min=0)  # bounds that cross are of a box without points
    middle, half = band.rest.ball
    size, error = (
        band.sloped(band.slopes.abs(), part.unsqueeze(0))[0] for part in (form.size, form.error)
    )
    rounding = (size + middle.abs()) * (2 * _ROUNDINGS * unit(size.dtype))
    error = grown(error + rounding + half, _ROUNDINGS, form.count + 2)
    constant = ~(error < radius)  # Not `>=`: what is no number is replaced.
    mask = constant.unsqueeze(1) if band.parts else constant
    slopes = band.slopes.masked_fill(mask, 0.0)
    moved = band.sloped(slopes, form.centre.unsqueeze(0))[0] + middle
    columns = (
        band.sloped(slopes, form.columns)
        if form.symbols
        else form.columns.new_zeros((0, *centre.shape))
    )
    return Form(
        form.symbols,
        columns,
        torch.where(constant, centre, moved),
        torch.where(constant, radius, error),
        tuple(patches.scaled(slopes[0]) for patches in form.patches),
    ).settled()


def band_of(node: Node, rule: RelaxedRule, before: Interval) -> Band | None:
    """None where there is none: what the node gives is an error of its own, between its bounds."""
    if node.op in _WITHOUT:
        return None
    match node.op:
        case Op.RELU:
            return _of_relu(before)
        case Op.PRODUCT:
            planes = product.relax(before.lower, before.upper)
            return Band(planes.slopes, Interval(planes.below, planes.above), parts=True)
        case Op.MAXPOOL:
            return _of_maxpool(node, before)
    lines = rule.relax(before)
    if isinstance(lines, MixedRelaxation):
        lines = lines.plain
    if not isinstance(lines, Lines):
        raise TypeError(f"no band is known around {node.op} of node {node.name}")
    return _between(lines, before)


def _of_relu(before: Interval) -> Band:
    lower, upper = before.lower.flatten(1), before.upper.flatten(1)
    stable = (lower >= 0).to(lower.dtype)
    slope, offset = relu_line(lower, upper, (lower < 0) & (upper > 0), stable)
    # Below is the line of that slope through 0, as long as it is no steeper than 1.
    slope, offset = (part.reshape(before.lower.shape) for part in (slope.clamp(max=1.0), offset))
    return Band(slope, Interval(torch.zeros_like(offset), offset))


def _of_maxpool(node: Node, before: Interval) -> Band:
    """The input with the greatest lower bound, and how far others may exceed it."""
    found = relaxation.pooled(node, before.lower, before.upper)
    shape = (len(before.lower), *node.shape)
    above = (found.others - found.least).clamp(min=0)
    rest = Interval(*outwards(torch.zeros_like(above), above))
    rest = Interval(rest.lower.reshape(shape), rest.upper.reshape(shape))
    return Band(torch.ones_like(rest.lower), rest, found.winner)


def _between(lines: Lines, before: Interval) -> Band:
    """f(x) - s x is at least its line - s x, which is least at an end of x's bounds."""
    slopes = (lines.lower_slope + lines.upper_slope) / 2
    slopes = torch.where(slopes.isfinite(), slopes, 0.0)
    ends = []
    for sign, slope, offset in (
        (-1, lines.lower_slope, lines.lower_offset),
        (1, lines.upper_slope, lines.upper_offset),
    ):
        rest = slope - slopes
        values = [
            torch.where(rest == 0, 0.0, rest * x) * sign for x in (before.lower, before.upper)
        ]
        most = torch.maximum(*values)
        size = torch.maximum(*(value.abs() for value in values)) + offset.abs()
        room = size * (_ROUNDINGS * unit(size.dtype)) + smallest(size.dtype) * _ROUNDINGS
        ends.append(offset + sign * (most + room))
    return Band(slopes, Interval(*ends))
