"""Rows of a network that bends once, as sums of hinges: ReLUs of affine functions of the input.

Where no ReLU stands behind another, every row is one affine function of the input and a weighted
sum of hinges, not by a relaxation but as it is. Nothing of the network is needed to bound it then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.backward import (
    Frontier,
    WholeCharges,
    advance,
    frontier_at,
)
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.neuron_forms import NeuronForms
from runner.engine.bounds.rounding import LEDGER, gamma, smallest
from runner.engine.bounds.split import bends_otherwise
from runner.engine.bounds.tagging import Tagger
from runner.engine.specs import Specs


class Hinges(NamedTuple):
    """J of them, max(0, slopes · x + offsets): slopes [J, inputs], offsets [J]; and what each
    counts with in every row: weights [rows, J], at least 0.
    """

    slopes: Tensor
    offsets: Tensor
    weights: Tensor


@dataclass(frozen=True)
class HingedRows:
    """By how much rows lie above their thresholds, at least, in a box: for all its points x,

        row · y(x) - threshold >= constant + slopes · x + rising(x) - falling(x)

    in real arithmetic, and equal but for rounding. All in float64, of the inputs that vary:
    lower, upper [inputs], slopes [rows, inputs], constant [rows]; `inputs`: which those are.
    """

    lower: Tensor
    upper: Tensor
    inputs: Tensor
    constant: Tensor
    slopes: Tensor
    rising: Hinges
    falling: Hinges

    @property
    def error(self) -> Tensor:
        """What rounding costs a bound of each row [rows] over a part of the box, in float64, with
        multipliers in [0, 1] (`HingePlanes`).

        Such a bound is a sum of products, each of which has gone through `terms` roundings at most:
        its factors, and the sums over inputs, hinges and inputs again. Over a part with centre c
        and radius r, |c| + r <= 2 m and |c| + 2 r <= 3 m for the greatest |x| <= m of the box.
        """
        size = torch.maximum(self.lower.abs(), self.upper.abs())
        hinges = self.rising.weights.shape[1] + self.falling.weights.shape[1]
        terms = 4 * len(size) + 2 * hinges + 32
        total = self.constant.abs() + 2 * (self.slopes.abs() @ size)
        for part, times in ((self.rising, 2), (self.falling, 3)):
            total = total + part.weights @ (part.offsets.abs() + times * (part.slopes.abs() @ size))
        underflow = smallest(LEDGER) * terms * (len(size) + 1) * (hinges + 1)
        return total * gamma(terms, LEDGER) + underflow


def bends_once(network: BoundNetwork) -> bool:
    """Whether ReLUs alone bend, none of them behind another."""
    graph, relaxed = network.graph, network.relaxed
    behind = (node for name in relaxed for node in network.ancestors(graph.node(name).inputs[0]))
    once = all(node.name not in relaxed for node in behind)
    return bool(relaxed) and once and not bends_otherwise(network)


def hinged(
    network: BoundNetwork,
    intervals: Mapping[str, Interval],
    specs: Specs,
    tag: Tagger,
    checkpoint: Callable[[], None],
) -> HingedRows:
    """Of a network that bends once, over the box that `intervals`, of every node, are of. All ranks
    do it together, before any goes its own way.
    """
    name = network.graph.input.name
    wide = {at: interval.to(LEDGER) for at, interval in intervals.items()}
    box, varying = wide[name], intervals[name].varying.flatten()
    charges = WholeCharges(network, wide)
    caught = {at: _Caught() for at in network.relaxed}
    with torch.no_grad(), tag.kind(Memory.BOUNDS):
        output = network.graph.node(network.graph.output)
        rows = specs.rows.to(LEDGER).reshape(-1, 1, *output.shape)
        start = frontier_at(network, output.name, network.features.local(output.name, rows, 2))
        affine = _end(network, advance(network, start, caught, {}, charges))
        offsets = affine.offsets - specs.thresholds
        offsets = offsets - offsets.abs() * gamma(4, LEDGER)
        affine = _Affine(affine.slopes, offsets).of_some(varying, box)
        forms = NeuronForms(network, wide, tag, checkpoint)
        least, most, weights = [], [], []
        for at, rows_at in caught.items():
            before = network.graph.node(at).inputs[0]
            neurons = (wide[before].upper.flatten() > 0).nonzero()[:, 0]
            rows, constants = forms.of(before, neurons)
            least.append(_Affine(rows[0], constants[0]).of_some(varying, box))
            most.append(_Affine(rows[1], constants[1]).of_some(varying, box))
            weights.append(rows_at.whole(network, at)[:, neurons])
        up = torch.cat(weights, 1)
        rises, falls = (up > 0).any(0), (up < 0).any(0)
        below, above = _Affine.joined(least).part(rises), _Affine.joined(most).part(falls)
        return HingedRows(
            lower=box.lower.flatten()[varying],
            upper=box.upper.flatten()[varying],
            inputs=varying.nonzero()[:, 0],
            constant=affine.offsets,
            slopes=affine.slopes,
            rising=Hinges(below.slopes, below.offsets, up[:, rises].clamp(min=0)),
            falling=Hinges(-above.slopes, -above.offsets, (-up[:, falls]).clamp(min=0)),
        )


class _Affine(NamedTuple):
    """Lower bounds of S values in real arithmetic: slopes [S, inputs] and offsets [S]."""

    slopes: Tensor
    offsets: Tensor

    def part(self, index: Tensor | slice) -> _Affine:
        return _Affine(self.slopes[index], self.offsets[index])

    @staticmethod
    def joined(parts: list[_Affine]) -> _Affine:
        return _Affine(torch.cat([p.slopes for p in parts]), torch.cat([p.offsets for p in parts]))

    def of_some(self, inputs: Tensor, box: Interval) -> _Affine:
        """Of some inputs (a mask [inputs]); the others are where they make it least."""
        others = self.slopes[:, ~inputs]
        centre, radius = (part.flatten()[~inputs] for part in box.ball)
        least = self.offsets + others @ centre - others.abs() @ radius
        size = self.offsets.abs() + others.abs() @ (centre.abs() + radius)
        terms = others.shape[1] + 8
        error = size * gamma(terms, LEDGER) + smallest(LEDGER) * terms
        return _Affine(self.slopes[:, inputs], least - error)


class _Caught:
    """In place of a relaxation: keeps the coefficients of ReLUs, so that none goes on."""

    def __init__(self) -> None:
        self._rows = torch.zeros(0)

    def backward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self._rows = rows
        return torch.zeros_like(rows), rows.new_zeros(rows.shape[:2])

    def whole(self, network: BoundNetwork, name: str) -> Tensor:
        """[rows, neurons], of all ranks."""
        return network.features.whole(name, self._rows).flatten(1)


def _end(network: BoundNetwork, done: Frontier) -> _Affine:
    """A frontier that has reached the input, of all ranks."""
    rows = network.features.whole(network.graph.input.name, done.pending[network.graph.input.name])
    constant = done.constant if done.error is None else done.constant - done.error
    return _Affine(rows.flatten(1), network.features.total(constant)[:, 0])
