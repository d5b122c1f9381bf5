"""Bounds of neurons over what a half space leaves of a box (Clip-and-Verify, Zhou et al. 2025).

Where a linear lower bound of a row is above its threshold nothing is unsafe, so only the half space
where it is not need be looked at. In a box of many inputs that is a small part: neurons that see
many of them are bounded again there, by linear forms over the whole box that were made once. Of the
form f and the half space g <= t, every λ >= 0 gives the least value of f + λ (g - t) over the box,
a concave function of λ that is a sum of absolute values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.neuron_forms import NeuronForms
from runner.engine.bounds.rounding import LEDGER, below, gamma, smallest, unit
from runner.engine.bounds.split import SplitSpace
from runner.engine.bounds.split_relu import SplitNode
from runner.engine.bounds.tagging import Tagger

# Of all inputs, what a node's neurons may see each for their forms to be kept without the rest.
SPARSE = 0.5
# Tangents of the concave function after those at 0 and at infinity.
DRAWN = 2
# Of what all neurons of a sub-domain promise, what one must to be looked at.
LEAST_GAIN = 1e-3
# Roundings of a term beside its sum: scaled, times λ, added, and the sums that are left out.
TERM_ROUNDINGS = 16
# What sums of a few numbers in float64 lose of their absolute values, at most.
FINE = 16 * unit(LEDGER)


@dataclass(frozen=True)
class HalfSpaces:
    """Of B sub-domains, the points x that a row is not proved for: slopes · x <= limits, in real
    arithmetic; slopes [B, inputs], limits [B] in float64.
    """

    slopes: Tensor
    limits: Tensor


@dataclass(frozen=True)
class NodeForms:
    """Of the inputs of one node's unstable neurons [U] and of their negatives, over the box:
    x -> centre + values · (x - c) / r for its middle c and radius r, a lower bound.

    values [2, U, inputs]; centre and size, the sum of |values|, [2, U] in float64. Where each
    neuron sees few inputs, at [U, W] are those, and seen [2, U, W] their values.
    """

    node: SplitNode
    values: Tensor
    centre: Tensor
    size: Tensor
    at: Tensor | None
    seen: Tensor

    @property
    def columns(self) -> slice:
        return slice(self.node.start, self.node.stop)


class Forms:
    """Of all neurons that can be split, but those of a first layer: a half space of all inputs says
    little of what sees few. `most_bytes`: nodes that find no room in it are left as they are, the
    first ones first, as they see least.
    """

    def __init__(
        self,
        network: BoundNetwork,
        space: SplitSpace,
        intervals: dict[str, Interval],
        tag: Tagger,
        checkpoint: Callable[[], None],
        most_bytes: int,
    ) -> None:
        self._tag, self._checkpoint = tag, checkpoint
        box = intervals[network.graph.input.name]
        self.middle, self.radius = (part.flatten() for part in box.ball)
        self.nodes: list[NodeForms] = []
        forms = NeuronForms(network, intervals, tag, checkpoint)
        for node in reversed(space.nodes):
            if node.before in network.exact or not len(node.neurons):
                continue
            each = 2 * len(node.neurons) * len(self.middle) * self.middle.element_size()
            if each > most_bytes:
                break
            made = self._scaled(node, *forms.of(node.before, node.neurons))
            most_bytes -= made.values.nbytes
            self.nodes.append(made)

    def __bool__(self) -> bool:
        return bool(self.nodes)

    def _scaled(self, node: SplitNode, rows: Tensor, constants: Tensor) -> NodeForms:
        with self._tag.kind(Memory.BOUNDS):
            values = rows * self.radius
            centre = constants + _at(rows, self.middle)
            size, at = values.abs().sum(2, dtype=LEDGER), _seen(rows)
            seen = values if at is None else values.gather(2, at.expand(2, -1, -1))
            return NodeForms(node, values, centre, size, at, seen)

    def clipped(self, spaces: HalfSpaces, before: Interval, scores: Tensor, most: int) -> Interval:
        """Bounds [B, N] of the unstable neurons' inputs where sub-domains meet their half spaces;
        nowhere looser than `before`. Bounds that cross say that a sub-domain has no point there.

        Looked at are, in each, the `most` neurons whose relaxations promise to cost less by the
        most of what they cost its bound, `scores` [B, N].
        """
        lower, upper = before.lower.clone(), before.upper.clone()
        with torch.no_grad(), self._tag.kind(Memory.A):
            cuts = _Cuts.of(spaces, self.middle, self.radius)
            tangents = [_tangents(forms, cuts) for forms in self.nodes]
            gains = torch.zeros_like(scores)
            for forms, ends in zip(self.nodes, tangents, strict=True):
                columns = forms.columns
                part = Interval(lower[:, columns], upper[:, columns])
                gains[:, columns] = scores[:, columns].clamp(min=0) * _promise(forms, ends, part)
            chosen = gains.topk(min(most, gains.shape[1]), 1).indices
            wanted = torch.zeros_like(gains, dtype=torch.bool).scatter_(1, chosen, True)
            wanted &= gains > LEAST_GAIN * gains.sum(1, keepdim=True)
            for index in range(len(lower)):
                self._checkpoint()
                for forms, ends in zip(self.nodes, tangents, strict=True):
                    some = wanted[index, forms.columns].nonzero()[:, 0]
                    if len(some):
                        low, high = _least(forms, some, cuts.of_one(index), ends.of(index, some))
                        at = forms.node.start + some
                        # fmax, fmin: what is no number says nothing.
                        lower[index, at] = torch.fmax(lower[index, at], low)
                        upper[index, at] = torch.fmin(upper[index, at], -high)
        return Interval(lower, upper)


class _Cuts(NamedTuple):
    """Half spaces in the box's own measure, where |x_k - c_k| <= r_k becomes [-1, 1]: scaled
    [..., inputs]; in float64 offset [...], slopes · c - limit, rounded down, and reach [...], the
    sum of |scaled|.
    """

    scaled: Tensor
    offset: Tensor
    reach: Tensor

    @staticmethod
    def of(spaces: HalfSpaces, middle: Tensor, radius: Tensor) -> _Cuts:
        scaled = spaces.slopes * radius
        at = _at(spaces.slopes, middle)
        offset = at - spaces.limits - (at.abs() + spaces.limits.abs()) * FINE
        return _Cuts(scaled, offset, scaled.abs().sum(-1, dtype=LEDGER))

    def of_one(self, index: int) -> _Cuts:
        return _Cuts(*(part[index] for part in self))


class _Tangents(NamedTuple):
    """Of concave functions of λ, without their centres: intercepts and slopes of a tangent on the
    left of the greatest value and of one on the right, all of the same shape.
    """

    left: Tensor
    rise: Tensor
    right: Tensor
    fall: Tensor

    def of(self, index: int, some: Tensor) -> _Tangents:
        """Of [2, U, B] to [2 n]."""
        return _Tangents(*(part[:, some, index].flatten() for part in self))

    @property
    def meeting(self) -> Tensor:
        """The λ >= 0 where they meet; 0 where the function only falls."""
        found = (self.right - self.left) / (self.rise - self.fall)
        usable = (self.rise > 0) & (self.fall < 0) & found.isfinite()
        return torch.where(usable, found, 0.0).clamp(min=0)


def _at(rows: Tensor, middle: Tensor) -> Tensor:
    """rows · c [...] in float64, rounded down, for rows [..., inputs]."""
    fine, at = rows.to(LEDGER), middle.to(LEDGER)
    return fine @ at - (fine.abs() @ at.abs()) * gamma(len(middle) + 2, LEDGER)


def _seen(rows: Tensor) -> Tensor | None:
    """Which inputs [U, W] neurons of rows [2, U, inputs] see, None where they are most of all."""
    seen = (rows != 0).any(0)
    width = max(1, int(seen.sum(1).max()))
    return None if width > SPARSE * rows.shape[2] else seen.to(rows.dtype).topk(width, 1).indices


def _tangents(forms: NodeForms, cuts: _Cuts) -> _Tangents:
    """At λ = 0 and at infinity, [2, U, B]."""
    values, offset = forms.values, cuts.offset.to(forms.values.dtype)
    sign, reach = values.sign(), cuts.reach.to(values.dtype)
    rise = offset - sign @ cuts.scaled.T
    if forms.at is not None:  # Beyond what a neuron sees, everything falls from 0 on.
        rise = rise - (reach - sign.abs_() @ cuts.scaled.abs().T)
    left = (-forms.size).to(values.dtype)[..., None].expand_as(rise)
    right = -(values @ cuts.scaled.sign().T)
    return _Tangents(left, rise, right, (offset - reach).expand_as(rise))


def _promise(forms: NodeForms, tangents: _Tangents, before: Interval) -> Tensor:
    """The share [B, U] of what a neuron's relaxation costs that is gone at best."""
    top = tangents.left + tangents.meeting * tangents.rise.clamp(min=0)
    most = (top + forms.centre.to(top.dtype)[..., None]).transpose(1, 2)
    lower = torch.fmax(before.lower, most[0]).clamp(max=0)
    upper = torch.fmin(before.upper, -most[1]).clamp(min=0)
    costs = [-low * up / (up - low) for low, up in ((lower, upper), (before.lower, before.upper))]
    return torch.where(costs[1] > 0, 1 - costs[0] / costs[1], 0.0).nan_to_num(1.0)


def _least(forms: NodeForms, some: Tensor, cut: _Cuts, tangents: _Tangents) -> Tensor:
    """The least values [2, n] of some neurons [n] and of their negatives in one half space."""
    values, scaled, offset = forms.seen[:, some], cut.scaled, cut.offset
    if forms.at is not None:
        scaled = scaled[forms.at[some]].repeat(2, 1)
        offset = offset - (cut.reach - scaled.abs().sum(1, dtype=LEDGER))
    values = values.flatten(0, 1)
    multiplier, sums = _best(values, scaled, offset.to(values.dtype), tangents)
    weight = multiplier.to(LEDGER)
    centre, size = (part[:, some].flatten() for part in (forms.centre, forms.size))
    terms = values.shape[1] + TERM_ROUNDINGS
    error = (size + 3 * weight * cut.reach) * gamma(terms, values.dtype)
    error = error + terms * (1 + weight) * smallest(values.dtype)
    error = error + (centre.abs() + weight * (cut.offset.abs() + cut.reach) + size) * FINE
    least = centre + weight * offset - sums.to(LEDGER) - error
    return below(least, values.dtype).reshape(2, -1)


def _best(
    values: Tensor, scaled: Tensor, offset: Tensor, tangents: _Tangents
) -> tuple[Tensor, Tensor]:
    """λ [R] about where λ offset - |values + λ scaled| is greatest, and that sum [R]; for values
    [R, W] and scaled [R, W] or [W]: where the tangents meet a new one is drawn, over again.
    """
    found, sums = torch.zeros_like(tangents.left), -tangents.left
    for _ in range(DRAWN):
        multiplier = tangents.meeting
        row = torch.addcmul(values, multiplier[:, None], scaled)
        sign = row.sign()
        slope = offset - (sign @ scaled if scaled.dim() == 1 else (sign * scaled).sum(1))
        total = row.abs_().sum(1)
        better = multiplier * offset - total > found * offset - sums
        found = torch.where(better, multiplier, found)
        sums = torch.where(better, total, sums)
        intercept = multiplier * (offset - slope) - total
        rises = slope > 0
        tangents = _Tangents(
            torch.where(rises, intercept, tangents.left),
            torch.where(rises, slope, tangents.rise),
            torch.where(rises, tangents.right, intercept),
            torch.where(rises, tangents.fall, slope),
        )
    return found, sums
