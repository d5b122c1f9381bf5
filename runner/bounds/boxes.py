"""CROWN over many small boxes at once: each row of A belongs to one unstable neuron of one box.

The Propagator gives every box of a batch a row for each neuron that is unstable in any of them.
Boxes of an input split differ in what is unstable, and few neurons are: here a row exists for
each pair of a box and a neuron, with the lines of its own box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.bounds.backward import Frontier, advance, frontier_at, local_interval
from runner.bounds.budget import CORE, Budget
from runner.bounds.interval import Interval
from runner.bounds.network import BoundNetwork
from runner.bounds.relu import ReluRelaxation
from runner.bounds.rules import Relaxation, ReluRule, StartRule
from runner.bounds.tagging import Tagger
from runner.network.graph import Node
from runner.vocabulary import Memory

# Values of A in one pass of a core: as much as stays in its cache.
PASS_VALUES = 256 * 1024


@dataclass(frozen=True)
class BoxBounds:
    """Bounds of the nodes over boxes [B, *input]; `largest` [B]: of any of their values."""

    box: Interval
    intervals: dict[str, Interval]

    @property
    def largest(self) -> Tensor:
        ends = [end for i in self.intervals.values() for end in (i.lower, i.upper)]
        return torch.stack([end.flatten(1).abs().amax(1) for end in ends]).amax(0)


@dataclass(frozen=True)
class RowBounds:
    """Of R rows: the lower bound [R], and its coefficients of the input [R, inputs]."""

    lower: Tensor
    coefficients: Tensor


class BoxPropagator:
    """Bounds of one network. `checkpoint` is called before each pass; it may raise.

    `start_nodes`: those whose bounds come from CROWN; `interval_only`: those that keep IBP's.
    """

    def __init__(
        self,
        network: BoundNetwork,
        tag: Tagger,
        checkpoint: Callable[[], None] = lambda: None,
        interval_only: AbstractSet[str] = frozenset(),
        budget: Budget = CORE,
    ) -> None:
        self._network = network
        self.start_nodes = network.start_nodes - network.exact - interval_only
        self._tag = tag
        self._checkpoint = checkpoint
        widest = max(node.size for node in network.graph.nodes)
        self._pass_rows = max(16, budget.scaled(PASS_VALUES) // widest)

    @torch.no_grad()
    def bound(self, box: Interval, known: Mapping[str, Interval]) -> BoxBounds:
        """Bounds of all nodes over boxes [B, *input].

        `known`: of some start nodes, over the same or larger boxes.
        """
        network = self._network
        bounds = BoxBounds(box, {network.graph.input.name: box})
        for node in network.graph.nodes[1:]:
            with self._tag.kind(Memory.BOUNDS):
                inputs = [bounds.intervals[name] for name in node.inputs]
                interval = network.rule(node.name).interval(*inputs)
                if node.name in known:
                    interval = interval.intersect(known[node.name])
            if node.name in self.start_nodes:
                interval = self._refined(node, interval, bounds)
            bounds.intervals[node.name] = interval
        return bounds

    @torch.no_grad()
    def rows(self, bounds: BoxBounds, rows: Tensor, box: Tensor) -> RowBounds:
        """Lower bounds of rows @ outputs: rows [R, outputs], each over its box: box [R]."""
        node = self._network.graph.node(self._network.graph.output)
        lines = _Lines(self._network, bounds)
        parts = []
        for some, of in zip(rows.split(self._pass_rows), box.split(self._pass_rows), strict=True):
            with self._tag.kind(Memory.A):
                whole = some.reshape(1, -1, *node.shape)
                local = self._network.features.local(node.name, whole, 2)
                lower, at = self._finish(frontier_at(self._network, node.name, local), lines, of)
                parts.append((lower[0], self._whole(at)[0]))
        return RowBounds(*map(torch.cat, zip(*parts, strict=True)))

    def _refined(self, node: Node, interval: Interval, bounds: BoxBounds) -> Interval:
        with self._tag.kind(Memory.BOUNDS):
            lower, upper = interval.lower.flatten(1).clone(), interval.upper.flatten(1).clone()
            relu_only = node.name in self._network.only_unstable
            wanted = (lower < 0) & (upper > 0) if relu_only else lower < upper
            pairs = wanted.nonzero()
        if not len(pairs):
            return interval
        starts = _Starts(self._network, node, wanted.any(0), lower.dtype, self._tag)
        lines = _Lines(self._network, bounds)
        for some in pairs.split(max(1, self._pass_rows // 2)):
            box, neuron = some.unbind(1)
            with self._tag.kind(Memory.A):
                found, _ = self._finish(starts.frontier(neuron), lines, box)
            with self._tag.kind(Memory.BOUNDS):
                lower[box, neuron] = torch.maximum(lower[box, neuron], found[0])
                upper[box, neuron] = torch.minimum(upper[box, neuron], -found[1])
        return Interval(lower, upper).reshape(*interval.lower.shape)

    def _finish(self, start: Frontier, lines: _Lines, box: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [S, R, *shape], each over the box of its R: the least values [S, R], and the rows
        [S, R, *input] on the input, of those inputs that are this rank's own.
        """
        self._checkpoint()
        done = advance(self._network, start, lines.of(box, start), {})
        rows = done.pending[self._network.graph.input.name]
        lower = done.constant + lines.least(rows.flatten(2), box)
        return self._network.features.total(lower), rows

    def _whole(self, rows: Tensor) -> Tensor:
        """Rows on all inputs [S, R, inputs]."""
        network = self._network
        whole = rows.new_zeros(*rows.shape[:2], *network.graph.input.shape)
        network.features.local(network.graph.input.name, whole, 2).copy_(rows)
        return network.features.total(whole).flatten(2)


class _Starts:
    """Rows +1 and -1 of some neurons of a node; past the node where it is Linear or Conv."""

    def __init__(
        self, network: BoundNetwork, node: Node, wanted: Tensor, dtype: torch.dtype, tag: Tagger
    ) -> None:
        neurons = wanted.nonzero()[:, 0]
        self._position = wanted.cumsum(0) - 1
        todo = tuple(network.ancestors(node.name))
        rule = network.linear.get(node.name)
        with tag.kind(Memory.A):
            if isinstance(rule, StartRule):
                rows, constant = rule.start(neurons, dtype)
                at, todo = node.inputs[0], todo[1:]
            else:
                rows = torch.zeros((len(neurons), node.size), dtype=dtype, device=neurons.device)
                rows.scatter_(1, neurons[:, None], 1.0)
                rows = network.features.local(node.name, rows.reshape(-1, *node.shape), 1)
                constant = rows.new_zeros(len(neurons))
                at = node.name
        self._rows, self._constant, self._at, self._todo = rows, constant, at, todo

    def frontier(self, neurons: Tensor) -> Frontier:
        """Rows [2, R, *shape] of flat neurons [R]."""
        position = self._position[neurons]
        rows, constant = self._rows[position], self._constant[position]
        return Frontier(
            {self._at: torch.stack((rows, -rows))}, torch.stack((constant, -constant)), self._todo
        )


class _Lines:
    """The relaxations of all nodes that a batch of boxes has bounds for so far, and the boxes."""

    def __init__(self, network: BoundNetwork, bounds: BoxBounds) -> None:
        self._network = network
        self._intervals = bounds.intervals
        inputs = local_interval(network, network.graph.input.name, bounds.box)
        self._centre, self._radius = inputs.centre.flatten(1), inputs.radius.flatten(1)
        self._relu: dict[str, _ReluLines] = {}

    def of(self, box: Tensor, start: Frontier) -> dict[str, Relaxation | ReluRelaxation]:
        """Of the relaxed nodes on the way, each row with the lines of its box [R]."""
        found: dict[str, Relaxation | ReluRelaxation] = {}
        for node in start.todo:
            if node.name in self._network.relaxed:
                found[node.name] = self._relaxation(node, box)
        return found

    def least(self, rows: Tensor, box: Tensor) -> Tensor:
        """The least value of A · x over the box of each R: A [S, R, inputs] -> [S, R]."""
        centre, radius = self._centre.index_select(0, box), self._radius.index_select(0, box)
        return (rows * centre).sum(2) - (rows.abs() * radius).sum(2)

    def _relaxation(self, node: Node, box: Tensor) -> Relaxation | ReluRelaxation:
        rule = self._network.relaxed[node.name]
        before = node.inputs[0]
        mine = local_interval(self._network, before, self._intervals[before])
        if not isinstance(rule, ReluRule):
            return rule.relax(Interval(mine.lower[box], mine.upper[box]))
        if node.name not in self._relu:
            self._relu[node.name] = _ReluLines.over(mine)
        return self._relu[node.name].select(box)


@dataclass(frozen=True)
class _ReluLines:
    """CROWN's two lines of every neuron of every box, [B, n]; `excess`: lower - upper slope."""

    upper_slope: Tensor
    excess: Tensor
    upper_bias: Tensor

    @staticmethod
    def over(before: Interval) -> _ReluLines:
        lower, upper = before.lower.flatten(1), before.upper.flatten(1)
        stable = (lower >= 0).to(lower.dtype)
        crossing = (lower < 0) & (upper > 0)
        width = torch.where(crossing, upper - lower, 1.0)
        slope = torch.where(crossing, upper / width, stable)
        bias = torch.where(crossing, -lower * slope, 0.0)
        adaptive = torch.where(crossing, (upper > -lower).to(lower.dtype), stable)
        return _ReluLines(slope, adaptive - slope, bias)

    def select(self, box: Tensor) -> _ReluLines:
        return _ReluLines(
            self.upper_slope.index_select(0, box),
            self.excess.index_select(0, box),
            self.upper_bias.index_select(0, box),
        )

    def backward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        flat = rows.flatten(2)
        positive = flat.clamp(min=0)
        constant = ((flat - positive).mul_(self.upper_bias)).sum(2)
        result = (flat * self.upper_slope).addcmul_(positive, self.excess)
        return result.reshape(rows.shape), constant
