"""CROWN over many small boxes at once: each row of A belongs to one unstable neuron of one box.

The Propagator gives every box of a batch a row for each neuron that is unstable in any of them.
Boxes of an input split differ in what is unstable, and few neurons are: here a row exists for
each pair of a box and a neuron, with the lines of its own box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.backward import (
    Frontier,
    Relaxations,
    Slopes,
    advance,
    frontier_at,
    local_interval,
)
from runner.engine.bounds.box_alpha import Chosen, Mixes, row_relaxations, searched
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.forward import ForwardPass, budget_for_forms
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.relu import ReluRelaxation
from runner.engine.bounds.rounding import (
    COEFFICIENT_ROUNDINGS,
    LEDGER,
    below,
    charged_at,
    floor,
    gamma,
    rate,
    relu_line,
    summed,
    sums_in,
)
from runner.engine.bounds.rules import ReluRule, RuleRelaxation, StartRule
from runner.engine.bounds.tagging import Tagger
from runner.engine.network.graph import Graph, Node

# Values of A in one pass of a core: as much as stays in its cache.
PASS_VALUES = 256 * 1024
# Boxes of a core that are bounded at once, and copies of their bounds that live at the same time.
LEAST_BOXES, MOST_BOXES = 16, 1024
LIVE_COPIES = 8
# Where open neurons have more rows than this for each column of their forms, they get no rows.
FORMS_ALONE = 32


def batch_boxes(graph: Graph, budget: Budget) -> int:
    """Boxes that are bounded at once: the budget is for the bounds of all nodes over them."""
    neurons = sum(node.size for node in graph.nodes)
    fits = budget.bytes // (4 * 2 * neurons * LIVE_COPIES)
    return min(max(LEAST_BOXES, fits), budget.scaled(MOST_BOXES))


@dataclass(frozen=True)
class BoxBounds:
    """Bounds of the nodes over boxes [B, *input]; they hold in real arithmetic."""

    box: Interval
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class RowBounds:
    """Of R rows: the lower bound [R], which holds in real arithmetic, and its coefficients of the
    input [R, inputs].
    """

    lower: Tensor
    coefficients: Tensor


class BoxPropagator:
    """Bounds of one network. `checkpoint` is called before each pass; it may raise.

    `start_nodes`: those whose bounds come from CROWN; `interval_only`: those that keep IBP's.
    `without`: parts that are left out; `work`: rows that passed a node so far.
    """

    def __init__(
        self,
        network: BoundNetwork,
        tag: Tagger,
        checkpoint: Callable[[], None] = lambda: None,
        interval_only: AbstractSet[str] = frozenset(),
        budget: Budget = CORE,
        without: AbstractSet[EnginePart] = frozenset(),
    ) -> None:
        self._network = network
        self._for_forms = budget_for_forms(budget, without)
        self.start_nodes = network.start_nodes - network.exact - interval_only
        self._tag = tag
        self._checkpoint = checkpoint
        widest = max(node.size for node in network.graph.nodes)
        self._pass_rows = max(16, budget.scaled(PASS_VALUES) // widest)
        self.work = 0

    @torch.no_grad()
    def bound(self, box: Interval, known: Mapping[str, Interval]) -> BoxBounds:
        """Bounds of all nodes over boxes [B, *input].

        `known`: of some start nodes, over the same or larger boxes.
        """
        network = self._network
        bounds = BoxBounds(box, {network.graph.input.name: box})
        lines = _Lines(network, bounds, box.lower.dtype)
        forward = ForwardPass(network, box, 0.0, self._tag, self._for_forms)
        for node in network.graph.nodes[1:]:
            with self._tag.kind(Memory.BOUNDS):
                inputs = [bounds.intervals[name] for name in node.inputs]
                interval = network.rule(node.name).interval(*inputs)
                if node.name in known:
                    interval = interval.intersect(known[node.name])
            bounds.intervals[node.name] = interval
            if node.name in self.start_nodes:
                bounds.intervals[node.name] = self._started(node, bounds, lines, forward)
        return bounds

    def _started(
        self, node: Node, bounds: BoxBounds, lines: _Lines, forward: ForwardPass
    ) -> Interval:
        """Over boxes that leave many neurons open, by forms alone: rows would cost many times as
        much. As boxes get smaller, less is open, and rows find more.
        """
        interval, columns = bounds.intervals[node.name], forward.free
        fits = forward.room(node.name, interval.lower.dtype) >= columns
        if not fits or not self._many(node, interval, columns):
            return self._refined(node, interval, lines)
        self._checkpoint()
        found = forward.interval(node.name, bounds.intervals, columns)
        with self._tag.kind(Memory.BOUNDS):
            interval = interval.intersect(found)
        if self._many(node, interval, columns):
            return interval
        return self._refined(node, interval, lines)

    def _many(self, node: Node, interval: Interval, columns: int) -> bool:
        """Whether rows of a node's open neurons are many beside the columns of its form."""
        rows = 2 * int(self._wanted(node, interval).sum())
        return rows > FORMS_ALONE * columns * len(interval.lower)

    def _wanted(self, node: Node, interval: Interval) -> Tensor:
        lower, upper = interval.lower.flatten(1), interval.upper.flatten(1)
        if node.name in self._network.only_unstable:
            return (lower < 0) & (upper > 0)
        return lower < upper

    @torch.no_grad()
    def rows(self, bounds: BoxBounds, rows: Tensor, box: Tensor) -> RowBounds:
        """Lower bounds of rows @ outputs: rows [R, outputs], each over its box: box [R]; in the
        precision of the rows, which may be higher than that of the bounds.
        """
        node = self._network.graph.node(self._network.graph.output)
        lines = _Lines(self._network, bounds, rows.dtype)
        parts = []
        for some, of in zip(rows.split(self._pass_rows), box.split(self._pass_rows), strict=True):
            with self._tag.kind(Memory.A):
                whole = some.reshape(1, -1, *node.shape)
                local = self._network.features.local(node.name, whole, 2)
                lower, at = self._finish(frontier_at(self._network, node.name, local), lines, of)
                parts.append((lower[0], self._whole(at)[0]))
        return RowBounds(*map(torch.cat, zip(*parts, strict=True)))

    def mixed_rows(
        self, bounds: BoxBounds, mixes: Mixes, settings: AlphaSettings
    ) -> tuple[RowBounds, Tensor]:
        """By how much mixes lie above their thresholds at least, with slopes and weights that are
        searched for, in the precision of their rows; and those weights [M, K].
        """
        parts = []
        for some in mixes.split(self._pass_rows):
            self._checkpoint()
            choice = searched(self._network, bounds.intervals, some, settings, self._tag)
            parts.append((*self._proved(bounds, some, choice), choice.weights))
        lower, coefficients, weights = map(torch.cat, zip(*parts, strict=True))
        return RowBounds(lower, coefficients), weights

    @torch.no_grad()
    def _proved(self, bounds: BoxBounds, mixes: Mixes, choice: Chosen) -> tuple[Tensor, Tensor]:
        network, dtype = self._network, mixes.rows.dtype
        node = network.graph.node(network.graph.output)
        mixes = replace(mixes, weights=choice.weights)
        lines = _Lines(network, bounds, dtype)
        with self._tag.kind(Memory.A):
            whole = mixes.row(choice.weights).reshape(1, -1, *node.shape)
            start = frontier_at(network, node.name, network.features.local(node.name, whole, 2))
            slopes = {name: slope.to(dtype) for name, slope in choice.slopes.items()}
            relaxations = row_relaxations(network, bounds.intervals, mixes.box, dtype)
            lower, at = self._finish(start, lines, mixes.box, relaxations, slopes)
            size = bounds.intervals[node.name].size.flatten(1)
            return lower[0] - mixes.threshold(size), self._whole(at)[0]

    def _refined(self, node: Node, interval: Interval, lines: _Lines) -> Interval:
        with self._tag.kind(Memory.BOUNDS):
            lower, upper = interval.lower.flatten(1).clone(), interval.upper.flatten(1).clone()
            pairs = (wanted := self._wanted(node, interval)).nonzero()
        if not len(pairs):
            return interval
        starts = _Starts(self._network, node, wanted.any(0), lower.dtype, self._tag)
        for some in pairs.split(max(1, self._pass_rows // 2)):
            box, neuron = some.unbind(1)
            with self._tag.kind(Memory.A):
                found, _ = self._finish(starts.frontier(neuron), lines, box)
            with self._tag.kind(Memory.BOUNDS):
                # fmax, fmin: what is not a number says nothing.
                lower[box, neuron] = torch.fmax(lower[box, neuron], found[0])
                upper[box, neuron] = torch.fmin(upper[box, neuron], -found[1])
        shape = interval.lower.shape
        return interval.between(lower.reshape(shape), upper.reshape(shape))

    def _finish(
        self,
        start: Frontier,
        lines: _Lines,
        box: Tensor,
        relaxations: Relaxations | None = None,
        slopes: Slopes | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Rows [S, R, *shape], each over the box of its R: the least values [S, R], and the rows
        [S, R, *input] on the input, of those inputs that are this rank's own.
        """
        self._checkpoint()
        self.work += start.constant.numel() * len(start.todo)
        charges = _BoxCharges(lines, box)
        relaxations = lines.of(box, start) if relaxations is None else relaxations
        done = advance(self._network, start, relaxations, slopes or {}, charges)
        rows = done.pending[self._network.graph.input.name]
        lower = done.constant + lines.least(rows, box)
        if done.error is not None:
            lower = lower - done.error
        return below(self._network.features.total(lower), rows.dtype), rows

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
        self._rows, self._constant = rows, constant.to(LEDGER)
        self._at, self._todo = at, todo
        # The other constants are charged with their products.
        self._share = gamma(network.roundings(dtype), dtype)

    def frontier(self, neurons: Tensor) -> Frontier:
        """Rows [2, R, *shape] of flat neurons [R]."""
        position = self._position[neurons]
        rows, constant = self._rows[position], self._constant[position]
        error = (constant.abs() * self._share).expand(2, -1)
        return Frontier(
            {self._at: torch.stack((rows, -rows))},
            torch.stack((constant, -constant)),
            self._todo,
            error,
        )


class _Lines:
    """The relaxations of all nodes that a batch of boxes has bounds for so far, made once, and the
    boxes.
    """

    def __init__(self, network: BoundNetwork, bounds: BoxBounds, dtype: torch.dtype) -> None:
        self.network = network
        self._intervals = bounds.intervals
        self._dtype = dtype
        inputs = local_interval(network, network.graph.input.name, bounds.box).to(dtype)
        centre, radius = inputs.ball
        size, terms = inputs.size.flatten(1), network.terms(network.graph.input.name, dtype)
        self._centre, self._floor = centre.flatten(1), floor(size, terms)
        # Few inputs are split: a row of them is short.
        self._reach = radius.flatten(1) + size * gamma(terms + COEFFICIENT_ROUNDINGS, dtype)
        self._relu: dict[str, _ReluLines] = {}
        self._rounding: dict[str, tuple[Tensor, Tensor]] = {}

    def of(self, box: Tensor, start: Frontier) -> dict[str, RuleRelaxation | ReluRelaxation]:
        """Of the relaxed nodes on the way, each row with the lines of its box [R]."""
        found: dict[str, RuleRelaxation | ReluRelaxation] = {}
        for node in start.todo:
            if node.name in self.network.relaxed:
                found[node.name] = self._relaxation(node, box)
        return found

    def least(self, rows: Tensor, box: Tensor) -> Tensor:
        """The least value of A · x over the box of each R: A [S, R, *input] -> [S, R]."""
        flat = rows.flatten(2)
        centre, reach, least = (
            values.index_select(0, box) for values in (self._centre, self._reach, self._floor)
        )
        return (flat * centre).sum(2) - (flat.abs() * reach).sum(2) - least

    def product_rate(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Of each box [B]: what a row is charged for passing a node, and the node's floor."""
        interval = self._intervals[name]
        if interval.sums is None or interval.floor is None:
            return None
        if name not in self._rounding:
            terms = self.network.terms(name, self._dtype)
            sums = sums_in(interval.sums, interval.off, self._dtype, terms)
            self._rounding[name] = rate(sums, terms), interval.floor.to(self._dtype)
        return self._rounding[name]

    def value_rate(self, name: str) -> Tensor:
        """Of each box [B]: what coefficients of a node are charged."""
        size = local_interval(self.network, name, self._intervals[name]).size
        return rate(size.flatten(1).to(self._dtype), self.network.roundings(self._dtype))

    def _relaxation(self, node: Node, box: Tensor) -> RuleRelaxation | ReluRelaxation:
        rule = self.network.relaxed[node.name]
        before = node.inputs[0]
        mine = local_interval(self.network, before, self._intervals[before]).to(self._dtype)
        if not isinstance(rule, ReluRule):
            return rule.relax(Interval(mine.lower[box], mine.upper[box]))
        if node.name not in self._relu:
            self._relu[node.name] = _ReluLines.over(mine)
        return self._relu[node.name].select(box)


@dataclass(frozen=True)
class _BoxCharges:
    """Of rows [S, R] over the boxes [R] that they belong to; see runner.engine.bounds.rounding."""

    lines: _Lines
    box: Tensor

    def product(self, node: Node, rows: Tensor) -> Tensor | None:
        of_boxes = self.lines.product_rate(node.name)
        if of_boxes is None:
            return None
        rates, least = (values.index_select(0, self.box) for values in of_boxes)
        charge = charged_at(rows, rates, least)
        return self.lines.network.features.counted(node.name, charge)

    def values(self, name: str, rows: Tensor) -> Tensor:
        rates = self.lines.value_rate(name).index_select(0, self.box)
        return self.lines.network.features.counted(name, charged_at(rows, rates))


@dataclass(frozen=True)
class _ReluLines:
    """CROWN's two lines of every neuron of every box, [B, n]."""

    lower_slope: Tensor
    upper_slope: Tensor
    upper_bias: Tensor

    @staticmethod
    def over(before: Interval) -> _ReluLines:
        lower, upper = before.lower.flatten(1), before.upper.flatten(1)
        stable = (lower >= 0).to(lower.dtype)
        crossing = (lower < 0) & (upper > 0)
        # Where it is stable, that is the slope of the function itself.
        adaptive = (upper + lower > 0).to(lower.dtype)
        return _ReluLines(adaptive, *relu_line(lower, upper, crossing, stable))

    def select(self, box: Tensor) -> _ReluLines:
        return _ReluLines(
            self.lower_slope.index_select(0, box),
            self.upper_slope.index_select(0, box),
            self.upper_bias.index_select(0, box),
        )

    def backward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        flat = rows.flatten(2)
        positive = flat.clamp(min=0)
        negative = flat - positive
        # One of the two is 0, so that each coefficient is rounded once.
        result = positive.mul_(self.lower_slope).addcmul_(negative, self.upper_slope)
        return result.reshape(rows.shape), summed(negative.mul_(self.upper_bias))
