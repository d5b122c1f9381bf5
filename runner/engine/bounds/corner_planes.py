"""Planes above ReLUs that are lowest at the corner of a box where a row is least.

A row of a network of forms is least at some corner of the box. There the triangle above a ReLU is
as far from it as anywhere, while one of the planes in the inputs that lie above it (those of
runner.engine.bounds.planes) touches it, or the form that is above its input. Which corner that is
can be foreseen from the forms of what a row takes, where they are about as tight as bounds by rows:
in the first layers. What is foreseen wrongly costs tightness, never truth.

In the box's own measure, |y| <= 1, let z <= h + v · y, and let A be the sum of |v|. The plane takes
shares of v: `ahead` of what falls towards the corner, first, and `beside` of what rises, so that
they add up to (h + A) / 2, but no less than 0 and no more than A. All that is our own definition.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.relu import ReluLines
from runner.engine.bounds.rounding import (
    LEDGER,
    below,
    charged,
    floor,
    gamma,
    grown,
    lost,
    rounded,
    smallest,
    summed,
)

# Free inputs of a box: products with planes have as many columns, and are to be small beside those
# with a layer's forms.
MOST_INPUTS = 64
# Of the width of a layer's open neurons, how wide their forms may be for corners behind it to be
# foreseen: prop_12 of cifar_biasfield takes 127, 105, 105, 111 and 153 boxes for 1.08, 1.12, 1.16,
# 1.2 and 1.3, and 137 without planes.
FORESEEN = 1.15
# Roundings of a share of v beside those of its sums.
SHARE_ROUNDINGS = 16
# Of A, that falls or rises: no share is divided by less.
SMALLEST_SHARE = 1e-6
# Values of a weight that are widened at once.
WIDE_VALUES = 1024 * 1024


@dataclass(frozen=True)
class LayerForms:
    """Of k neurons, alive before a ReLU, over c columns: `weight` [k, c], `bias` [k], and what they
    may be off by, `error` [k] in float64; the ReLU's `lines`; and their bounds `interval` [1, k].
    """

    weight: Tensor
    bias: Tensor
    error: Tensor
    lines: ReluLines
    interval: Interval

    @property
    def open(self) -> Tensor:
        """Which the triangle is above, and not the function itself."""
        return self.lines.upper_bias[0] > 0


@dataclass(frozen=True)
class CornerPlanes:
    """Of k neurons before a ReLU, zeros where one is stable. `slopes` v and `steep` |v| [k, d];
    `tilts` [d, k]: what a corner takes off the share of A that falls towards it, 1/2; `room` [k]:
    the share of A that shares add up to; `costs` [k, 2]: offsets, and what a plane's absolute
    values add up to, at most; `open` [k]: 1 or 0; `rising` [1, k]: the ReLU's lower lines.
    """

    slopes: Tensor
    steep: Tensor
    tilts: Tensor
    room: Tensor
    costs: Tensor
    open: Tensor
    rising: Tensor

    @staticmethod
    def above(forms: Tensor, layer: LayerForms) -> CornerPlanes:
        """Of upper forms [k, d + 1] in float64, the constant last."""
        dtype, open_ = layer.weight.dtype, layer.open
        forms = torch.where(open_[:, None], forms, 0.0)
        fine, height = forms[:, :-1], forms[:, -1]
        slopes = fine.to(dtype)
        height = height + (fine - slopes).abs().sum(1)
        steep = slopes.abs()
        total = steep.to(LEDGER).sum(1)
        room = ((height + total) / 2).clamp(min=0).minimum(total)
        # Shares add up to the room but for this, whatever the corner.
        share = 4 * (gamma(slopes.shape[1] + SHARE_ROUNDINGS, dtype) + SMALLEST_SHARE)
        off = share * (total + height.abs()) + 4 * smallest(dtype)
        offsets = torch.where(open_, torch.maximum(room, height + total - room) + off, 0.0)
        sizes = grown(offsets + total, len(forms), 1)
        costs = -below(-torch.stack((offsets, sizes), 1), dtype)
        per_total = torch.where(total > smallest(dtype), 1 / total, 0.0)
        return CornerPlanes(
            slopes,
            steep,
            (slopes * (-0.5 * per_total)[:, None]).T.to(dtype),
            (room * per_total).to(dtype),
            costs,
            open_.to(dtype),
            layer.lines.lower_slope,
        )

    def passed(self, given: Tensor, corner: Tensor) -> Tensor:
        """Coefficients [R, k] <= 0 of the ReLUs' outputs, by the planes for corners [R, d] of -1
        and 1: what they make of y [R, d].
        """
        falls = torch.addmm(self.room.new_full((1,), 0.5), corner, self.tilts)
        falls.clamp_(SMALLEST_SHARE, 1 - SMALLEST_SHARE)
        ahead = torch.div(self.room, falls).clamp_(max=1.0)
        beside = torch.div(self.room - 1, falls.neg_().add_(1.0)).add_(1.0).clamp_(min=0.0)
        ahead.mul_(given)
        beside.mul_(given)
        of_all = torch.add(ahead, beside) @ self.slopes
        return of_all.addcmul_(corner, beside.sub_(ahead) @ self.steep).mul_(0.5)


@dataclass
class CornerForms:
    """Of one box [1, *input] in one precision, its layers as far as they are foreseen. `below` and
    `above` [c, d + 1], in float64: forms of the columns so far; `sizes` [c]: what their absolute
    values add up to, at most, with those of what they were made of.
    """

    free: Tensor
    middle: Tensor
    radius: Tensor
    below: Tensor
    above: Tensor
    sizes: Tensor
    planes: list[CornerPlanes] = field(default_factory=list)
    ended: bool = False

    @staticmethod
    def of(box: Interval) -> CornerForms | None:
        """None where there are too many free inputs."""
        free = (box.upper > box.lower).flatten().nonzero()[:, 0]
        if not 0 < len(free) <= MOST_INPUTS:
            return None
        middle, radius = (part.flatten() for part in box.ball)
        forms = middle.new_zeros((len(middle), len(free) + 1), dtype=LEDGER)
        forms[free, torch.arange(len(free), device=free.device)] = radius[free].to(LEDGER)
        forms[:, -1] = middle.to(LEDGER)
        return CornerForms(free, middle[free], radius[free], forms, forms, forms.abs().sum(1))

    def add(self, layer: LayerForms) -> None:
        """The next one; unless its corners would not be foreseen."""
        lower, upper = self._through(layer)
        spread = lower[:, :-1].abs().sum(1) + upper[:, :-1].abs().sum(1)
        wide = (upper[:, -1] - lower[:, -1] + spread)[layer.open].sum()
        known = (layer.interval.upper - layer.interval.lower)[0, layer.open].to(LEDGER).sum()
        self.ended = not bool(wide <= FORESEEN * known)
        if not self.ended:
            self._take(layer, lower, upper)
            self.planes.append(CornerPlanes.above(upper, layer))

    def _through(self, layer: LayerForms) -> tuple[Tensor, Tensor]:
        """Lower and upper forms [k, d + 1] of a layer's neurons."""
        both = torch.cat((self.below, self.above), 1)
        other = torch.cat((self.above, self.below), 1)
        rows = max(1, WIDE_VALUES // layer.weight.shape[1])
        parts, off = [], []
        for some in layer.weight.split(rows):
            wide = some.to(LEDGER)
            positive = wide.clamp(min=0)
            parts.append(positive @ both + (wide - positive) @ other)
            off.append(wide.abs() @ self.sizes)
        lower, upper = torch.cat(parts).chunk(2, 1)
        bias, terms = layer.bias.to(LEDGER), layer.weight.shape[1] + 2
        error = grown(lost(layer.error, torch.cat(off) + bias.abs(), terms), terms, 2)
        lower, upper = lower.clone(), upper.clone()
        lower[:, -1] += bias - error
        upper[:, -1] += bias + error
        return lower, upper

    def _take(self, layer: LayerForms, lower: Tensor, upper: Tensor) -> None:
        """Forms of the ReLU's outputs, by its lines."""
        lines = layer.lines
        rising = lines.lower_slope[0].to(LEDGER)[:, None]
        falling = lines.upper_slope[0].to(LEDGER)[:, None]
        constant = lines.upper_bias[0].to(LEDGER)
        above = falling * upper
        sizes = torch.maximum((rising * lower).abs().sum(1), above.abs().sum(1) + constant)
        above[:, -1] += constant
        self.below = torch.cat((self.below, rising * lower))
        self.above = torch.cat((self.above, above))
        self.sizes = torch.cat((self.sizes, sizes))


class CornerRows:
    """R rows over columns [R, c] that planes take a part of, layer by layer, the last first."""

    def __init__(self, forms: CornerForms, columns: Tensor, further: int) -> None:
        self._forms, self._further = forms, further
        count, dtype = columns.shape[1], columns.dtype
        below, above = (form[:count, :-1].to(dtype) for form in (forms.below, forms.above))
        at = columns @ (below + above) - columns.abs() @ (above - below)
        self.corner = torch.where(at > 0, -1.0, 1.0).to(dtype)
        self._slopes = torch.zeros_like(self.corner)
        self._floor = floor(columns.new_ones((1, len(forms.free))), count + further)
        self.constant = columns.new_zeros(len(columns))
        self.error = columns.new_zeros(len(columns))

    def take(self, number: int, own: Tensor) -> Tensor:
        """Coefficients [R, k] of a layer's outputs: what is left of them before it."""
        planes = self._forms.planes[number]
        given = own.clamp(max=0).mul_(planes.open)
        constant, size = (given @ planes.costs).unbind(1)
        share = rounded(2 * own.shape[1] + self._further, own)
        self.error += self._floor - size * share
        self._slopes += planes.passed(given, self.corner)
        self.constant += constant
        return torch.sub(own, given, out=given).mul_(planes.rising)

    def put(self, columns: Tensor) -> None:
        """Into those of the inputs: columns [R, c], as slopes of x."""
        forms = self._forms
        slopes = self._slopes / forms.radius
        reach = (forms.radius + forms.middle.abs())[None] * 2
        terms = len(forms.free) + self._further
        self.error += charged(slopes.unsqueeze(1), reach, terms, self._floor)[:, 0]
        self.constant -= summed(slopes * forms.middle)
        columns.index_add_(1, forms.free, slopes)
