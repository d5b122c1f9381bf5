"""α over many boxes at once, and with it the weights of a mix of rows.

An output is unsafe where all rows of a disjunct are at most their thresholds. It is excluded where
some mix of the rows, with weights >= 0, stays above the same mix of the thresholds: the mix is
bounded as one row, so what its rows have in common cancels before anything is relaxed. Weights and
slopes are found together, in the network's precision; one more pass is the proof.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.ascent import LEAST, ProjectedAdam
from runner.engine.bounds.backward import (
    Frontier,
    Relaxations,
    advance,
    concretize,
    frontier_at,
    local_interval,
)
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.relu import ReluRelaxation
from runner.engine.bounds.rounding import gamma
from runner.engine.bounds.tagging import Tagger


@dataclass(frozen=True)
class Mixes:
    """M of them, each over one box of a batch: box [M]; rows [M, K, outputs], thresholds [M, K] and
    weights [M, K], at least 0; rows that are not `real` [M, K] are not there, and weigh nothing.
    """

    box: Tensor
    rows: Tensor
    thresholds: Tensor
    weights: Tensor
    real: Tensor

    def split(self, count: int) -> list[Mixes]:
        parts = [getattr(self, field.name).split(count) for field in fields(self)]
        return [Mixes(*some) for some in zip(*parts, strict=True)]

    def row(self, weights: Tensor) -> Tensor:
        """[M, outputs]."""
        return (weights.unsqueeze(2) * self.rows.to(weights)).sum(1)

    def threshold(self, size: Tensor) -> Tensor:
        """[M], with what mixing may have rounded where outputs are at most `size` [boxes, outputs],
        in the precision of the rows.
        """
        mixed = (self.weights * self.thresholds).sum(1)
        outputs = size.to(self.rows)[self.box].unsqueeze(1)
        sums = (self.weights * ((self.rows.abs() * outputs).sum(2) + self.thresholds.abs())).sum(1)
        terms = self.rows.shape[1] + self.rows.shape[2] + 8
        return mixed + sums * gamma(2 * terms, sums.dtype)


@dataclass(frozen=True)
class Chosen:
    """What a search found: slopes [1, M, U] by ReLU node, and weights [M, K]."""

    slopes: Mapping[str, Tensor]
    weights: Tensor


def row_relaxations(
    network: BoundNetwork, intervals: Mapping[str, Interval], box: Tensor, dtype: torch.dtype
) -> Relaxations:
    """Of every relaxed node, for each row the lines over its box [M]."""
    made = {}
    for node in network.graph.nodes:
        if node.name in network.relaxed:
            before = node.inputs[0]
            mine = local_interval(network, before, intervals[before])
            some = Interval(mine.lower[box], mine.upper[box]).to(dtype)
            made[node.name] = network.relaxed[node.name].relax(some)
    return made


def _unstable(interval: Interval, box: Tensor) -> bool:
    """Whether some neuron is, on whichever rank, over some of the boxes [M]."""
    lower, upper = interval.lower[box], interval.upper[box]
    return bool(((lower < 0) & (upper > 0)).any())


def searched(
    network: BoundNetwork,
    intervals: Mapping[str, Interval],
    mixes: Mixes,
    settings: AlphaSettings,
    tag: Tagger,
) -> Chosen:
    """The slopes and weights of the iteration with each mix's best bound above its threshold."""
    search = _Search(network, intervals, mixes, tag)
    values = list(search.slopes.values())
    if search.mixed:
        values.append(search.weights)
    ascent = ProjectedAdam(values, settings.step, settings.decay, settings.momenta)
    for iteration in range(settings.iterations):
        last = iteration == settings.iterations - 1
        with tag.kind(Memory.A), torch.set_grad_enabled(not last):
            bound = search.bound()
        with torch.no_grad(), tag.kind(Memory.ALPHA):
            search.keep(bound.detach())
        if last or not values:
            break
        with tag.kind(Memory.A):
            gradients = torch.autograd.grad(bound.sum(), values)
        with torch.no_grad(), tag.kind(Memory.ALPHA):
            least = settings.least * bound.detach().abs().reshape(1, -1, 1) + LEAST
            ascent.step(search.whole(gradients), least)
            search.project(first=iteration == 0)
    return Chosen(search.best_slopes, search.best_weights)


class _Search:
    """The values that are chosen, and the best so far. `weights`: [1, M, K], as slopes lie."""

    def __init__(
        self,
        network: BoundNetwork,
        intervals: Mapping[str, Interval],
        mixes: Mixes,
        tag: Tagger,
    ) -> None:
        dtype = network.dtype
        self._network, self._mixes = network, mixes
        # For searching alone, so in the network's precision.
        near = {name: interval.nearest(dtype) for name, interval in intervals.items()}
        self._relaxations = row_relaxations(network, near, mixes.box, dtype)
        box = intervals[network.graph.input.name]
        self._box = Interval(box.lower[mixes.box], box.upper[mixes.box]).nearest(dtype)
        self._thresholds = mixes.thresholds.to(dtype)
        self.mixed = mixes.rows.shape[1] > 1
        with tag.kind(Memory.ALPHA):
            self.weights = mixes.weights.to(dtype).unsqueeze(0).requires_grad_(self.mixed)
            # A rank may hold no unstable neuron of a node: its slopes are then empty, but there,
            # as gradients pass through the same nodes on all ranks.
            self.slopes = {
                name: relaxation.initial_slopes(1).requires_grad_()
                for name, relaxation in self._relaxations.items()
                if isinstance(relaxation, ReluRelaxation)
                and _unstable(near[network.graph.node(name).inputs[0]], mixes.box)
            }
            self.best_slopes = {name: slope.detach().clone() for name, slope in self.slopes.items()}
            self.best_weights = mixes.weights
        self._best = self._thresholds.new_full((1, len(mixes.box)), -torch.inf)
        self._fixed = None if self.mixed else self._start()

    def _start(self) -> Frontier:
        """As far as no slope has a say."""
        network = self._network
        node = network.graph.node(network.graph.output)
        whole = self._mixes.row(self.weights[0]).reshape(1, -1, *node.shape)
        rows = network.features.local(node.name, whole, 2)
        start = frontier_at(network, node.name, rows)
        return advance(network, start, self._relaxations, {}, stop_at_relaxed=True)

    def bound(self) -> Tensor:
        """[1, M], without the thresholds, whose part of the gradient `whole` adds."""
        start = self._fixed or self._start()
        done = advance(self._network, start, self._relaxations, self.slopes)
        return concretize(self._network, done, self._box)

    def keep(self, bound: Tensor) -> None:
        margin = bound - (self.weights * self._thresholds).sum(2)
        better = margin > self._best
        self._best = torch.where(better, margin, self._best)
        for name, slope in self.slopes.items():
            best = self.best_slopes[name]
            torch.where(better.unsqueeze(2), slope.detach(), best, out=best)
        if self.mixed:
            chosen = self.weights[0].detach().to(self.best_weights)
            self.best_weights = torch.where(better[0].unsqueeze(1), chosen, self.best_weights)

    def whole(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Slopes are a rank's own; of the weights each rank has only what its columns say."""
        if not self.mixed:
            return gradients
        features, output = self._network.features, self._network.graph.output
        of_weights = features.total(features.counted(output, gradients[-1])) - self._thresholds
        return *gradients[:-1], of_weights

    def project(self, *, first: bool) -> None:
        """Weights onto those that are at least 0 and sum to 1; after those that were given, equal
        ones are the second to be tried.
        """
        if self.mixed:
            real = self._mixes.real
            equal = real.to(self.weights) / real.sum(1, keepdim=True)
            self.weights.copy_(equal if first else on_simplex(self.weights, real))


def on_simplex(values: Tensor, real: Tensor) -> Tensor:
    """The nearest weights [..., K] that are at least 0 and sum to 1, and 0 where not `real`
    (Duchi et al. 2008).
    """
    ordered, _ = values.masked_fill(~real, -torch.inf).sort(-1, descending=True)
    count = torch.arange(1, values.shape[-1] + 1, device=values.device)
    sums = ordered.nan_to_num(neginf=0.0).cumsum(-1) - 1
    used = (ordered * count > sums).sum(-1, keepdim=True).clamp(min=1)
    shift = sums.gather(-1, used - 1) / used
    return (values - shift).clamp(min=0).masked_fill(~real, 0.0)
