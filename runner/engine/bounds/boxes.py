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
)
from runner.engine.bounds.box_alpha import Chosen, Mixes, row_relaxations, searched
from runner.engine.bounds.box_lines import BoxCharges, BoxLines
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.end_lines import EndLines
from runner.engine.bounds.ends import Ends, end_forms
from runner.engine.bounds.forward import ForwardPass, budget_for_forms
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import (
    LEDGER,
    below,
    gamma,
)
from runner.engine.bounds.rule_kinds import StartRule
from runner.engine.bounds.tagging import Tagger
from runner.engine.network.graph import Graph, Node

# Values of A in one pass of a core: as much as stays in its cache.
PASS_VALUES = 256 * 1024
# Boxes of a core that are bounded at once, and copies of their bounds that live at the same time.
LEAST_BOXES, MOST_BOXES = 1, 1024
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
    """Bounds of the nodes over boxes [B, *input]; they hold in real arithmetic. `end`: where rows
    may end. `opening` [B, inputs]: how far the bounds of ReLUs that stay open go together, for each
    unit of an input, as far as rows say; None: not known.
    """

    box: Interval
    intervals: dict[str, Interval]
    end: EndLines | None = None
    opening: Tensor | None = None


@dataclass(frozen=True)
class RowBounds:
    """Of R rows: the lower bound [R], which holds in real arithmetic, and how steep rows are along
    each input [R, inputs]. `planes`: coefficients [R, inputs] of a plane below each row, all over
    its box, which is nowhere lower than the bound; None: not known.
    """

    lower: Tensor
    coefficients: Tensor
    planes: Tensor | None = None


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
        self._tag, self._checkpoint = tag, checkpoint
        widest = max(node.size for node in network.graph.nodes)
        self._pass_rows = max(16, budget.scaled(PASS_VALUES) // widest)
        self._ends = Ends(network, self._for_forms)
        self.work = 0

    @torch.no_grad()
    def bound(self, box: Interval, known: Mapping[str, Interval]) -> BoxBounds:
        """Bounds of all nodes over boxes [B, *input].

        `known`: of some start nodes, over the same or larger boxes.
        """
        network = self._network
        bounds = BoxBounds(box, {network.graph.input.name: box})
        lines = BoxLines(network, bounds.box, bounds.intervals, box.lower.dtype)
        opening = torch.zeros_like(box.lower.flatten(1))
        forward = ForwardPass(network, box, 0.0, self._tag, self._for_forms)
        for node in network.graph.nodes[1:]:
            with self._tag.kind(Memory.BOUNDS):
                inputs = [bounds.intervals[name] for name in node.inputs]
                interval = network.rule(node.name).interval(*inputs)
                if node.name in known:
                    interval = interval.intersect(known[node.name])
            bounds.intervals[node.name] = interval
            if node.name in self.start_nodes:
                interval, many = self._formed(node, bounds, forward)
                bounds.intervals[node.name] = interval
                bounds = self._with_end(node, interval, bounds)
                if bounds.end is not None and bounds.end.name == node.name:
                    bounds.intervals[node.name] = interval.intersect(
                        bounds.end.interval.outer(interval.lower.dtype)
                    )
                elif bounds.end is not None or not many:
                    interval, more = self._refined(node, interval, lines, bounds.end)
                    bounds.intervals[node.name] = interval
                    opening = opening if more is None else opening + more
        return replace(bounds, opening=opening)

    def _formed(self, node: Node, bounds: BoxBounds, forward: ForwardPass) -> tuple[Interval, bool]:
        """Over boxes that leave many neurons open, by forms; and whether they still do. Rows would
        cost many times as much. As boxes get smaller, less is open, and rows find more.
        """
        interval, columns = bounds.intervals[node.name], forward.free
        fits = forward.room(node.name, interval.lower.dtype) >= columns
        if not fits or not self._many(node, interval, columns):
            return interval, False
        self._checkpoint()
        found = forward.interval(node.name, bounds.intervals, columns)
        with self._tag.kind(Memory.BOUNDS):
            interval = interval.intersect(found)
        return interval, self._many(node, interval, columns)

    def _with_end(self, node: Node, interval: Interval, bounds: BoxBounds) -> BoxBounds:
        """Once rows of a node cost so much that they had better end before the input."""
        if not self._ends.may_pay(node):
            return bounds
        rows = 2 * int(self._wanted(node, interval).sum())
        last = None if bounds.end is None else bounds.end.name
        end = self._ends.best(node.name, rows, bounds.intervals, last)
        if end is None:
            return bounds
        self._checkpoint()
        with self._tag.kind(Memory.A):
            found = end_forms(
                self._network, end, bounds.intervals, self._for_forms, self._checkpoint
            )
        self.work += found.columns * len(self._network.ancestors(end.name))
        return replace(bounds, end=EndLines.of(self._network, found, bounds.box))

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
        lines = BoxLines(self._network, bounds.box, bounds.intervals, rows.dtype)
        parts = []
        for some, of in zip(rows.split(self._pass_rows), box.split(self._pass_rows), strict=True):
            lower, coefficients = self._of_outputs(some.unsqueeze(0), bounds, lines, of)
            parts.append((lower[0], coefficients[0]))
        lower, coefficients = map(torch.cat, zip(*parts, strict=True))
        return RowBounds(lower, coefficients, coefficients if bounds.end is None else None)

    @torch.no_grad()
    def same_rows(self, bounds: BoxBounds, rows: Tensor) -> RowBounds:
        """As `rows`, of rows [S, outputs] over every box, [S, B]: those of a box share lines."""
        lines = BoxLines(self._network, bounds.box, bounds.intervals, rows.dtype)
        every_box = torch.arange(len(bounds.box.lower), device=rows.device)
        parts = []
        for of in every_box.split(max(1, self._pass_rows // max(1, len(rows)))):
            every = rows.unsqueeze(1).expand(-1, len(of), -1)
            parts.append(self._of_outputs(every, bounds, lines, of))
        lower, coefficients = (torch.cat(some, 1) for some in zip(*parts, strict=True))
        return RowBounds(lower, coefficients, coefficients if bounds.end is None else None)

    def _of_outputs(
        self, rows: Tensor, bounds: BoxBounds, lines: BoxLines, box: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of rows [S, R, outputs] over boxes [R]: lower bounds [S, R] and coefficients [S, R,
        inputs].
        """
        node = self._network.graph.node(self._network.graph.output)
        with self._tag.kind(Memory.A):
            whole = rows.unflatten(2, node.shape)
            local = self._network.features.local(node.name, whole, 2)
            start = frontier_at(self._network, node.name, local)
            lower, at = self._finish(start, lines, box)
            coefficients = self._whole(at)
            if bounds.end is None:
                return lower, coefficients
            other, slopes = self._finish_at(bounds.end, start, lines, box)
            better = other > lower
            return torch.where(better, other, lower), torch.where(
                better.unsqueeze(2), slopes.to(coefficients), coefficients
            )

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
        lines = BoxLines(network, bounds.box, bounds.intervals, dtype)
        with self._tag.kind(Memory.A):
            whole = mixes.row(choice.weights).reshape(1, -1, *node.shape)
            start = frontier_at(network, node.name, network.features.local(node.name, whole, 2))
            slopes = {name: slope.to(dtype) for name, slope in choice.slopes.items()}
            relaxations = row_relaxations(network, bounds.intervals, mixes.box, dtype)
            lower, at = self._finish(start, lines, mixes.box, relaxations, slopes)
            size = bounds.intervals[node.name].size.flatten(1)
            return lower[0] - mixes.threshold(size), self._whole(at)[0]

    def _refined(
        self, node: Node, interval: Interval, lines: BoxLines, end: EndLines | None
    ) -> tuple[Interval, Tensor | None]:
        """By rows of what is open; and of ReLUs how far what stays open goes together, for each
        unit of an input [B, inputs].
        """
        with self._tag.kind(Memory.BOUNDS):
            lower, upper = interval.lower.flatten(1).clone(), interval.upper.flatten(1).clone()
            pairs = (wanted := self._wanted(node, interval)).nonzero()
        if not len(pairs):
            return interval, None
        relus = node.name in self._network.only_unstable
        opening = list[Tensor]()
        starts = _Starts(self._network, node, wanted.any(0), lower.dtype, self._tag)
        size = self._pass_rows if end is None else self._for_forms.scaled(PASS_VALUES) // end.widest
        for some in pairs.split(max(1, size // 2)):
            box, neuron = some.unbind(1)
            with self._tag.kind(Memory.A):
                start = starts.frontier(neuron)
                if end is None:
                    found, rows = self._finish(start, lines, box)
                    rows = self._whole(rows) if relus else rows
                else:
                    found, rows = self._finish_at(end, start, lines, box)
            with self._tag.kind(Memory.BOUNDS):
                # fmax, fmin: what is not a number says nothing.
                lower[box, neuron] = torch.fmax(lower[box, neuron], found[0])
                upper[box, neuron] = torch.fmin(upper[box, neuron], -found[1])
                if relus:
                    open_ = (lower[box, neuron] < 0) & (upper[box, neuron] > 0)
                    steep = torch.where(open_[:, None], rows.abs().sum(0), 0.0)
                    opening.append(summed_by_box(steep.to(lower.dtype), box, len(lower)))
        shape = interval.lower.shape
        interval = interval.between(lower.reshape(shape), upper.reshape(shape))
        return interval, torch.stack(opening).sum(0) if relus else None

    def _finish(
        self,
        start: Frontier,
        lines: BoxLines,
        box: Tensor,
        relaxations: Relaxations | None = None,
        slopes: Slopes | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Rows [S, R, *shape], each over the box of its R: the least values [S, R], and the rows
        [S, R, *input] on the input, of those inputs that are this rank's own.
        """
        done = self._advanced(start, lines, box, relaxations, slopes)
        rows = done.pending[self._network.graph.input.name]
        lower = done.constant + lines.least(rows, box)
        if done.error is not None:
            lower = lower - done.error
        return below(self._network.features.total(lower), rows.dtype), rows

    def _finish_at(
        self, end: EndLines, start: Frontier, lines: BoxLines, box: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`_finish` with rows that end at a node, and their coefficients [S, R, inputs]."""
        ended = replace(start, todo=tuple(n for n in start.todo if n.name not in end.before))
        done = self._advanced(ended, lines, box)
        rows = done.pending[end.name]
        least, slopes = end.least(rows, box)
        known = done.constant if done.error is None else done.constant - done.error
        lower = self._network.features.total(known) + least
        return below(lower, rows.dtype), slopes

    def _advanced(
        self,
        start: Frontier,
        lines: BoxLines,
        box: Tensor,
        relaxations: Relaxations | None = None,
        slopes: Slopes | None = None,
    ) -> Frontier:
        self._checkpoint()
        self.work += start.constant.numel() * len(start.todo)
        relaxations = lines.of(box, start) if relaxations is None else relaxations
        return advance(self._network, start, relaxations, slopes or {}, BoxCharges(lines, box))

    def _whole(self, rows: Tensor) -> Tensor:
        """Rows on all inputs [S, R, inputs]."""
        return self._network.whole(self._network.graph.input.name, rows, 2).flatten(2)


def summed_by_box(values: Tensor, box: Tensor, count: int) -> Tensor:
    """Of values [R, n] of boxes in order [R], the sum of each box [count, n]: always in the same
    order, so that all ranks have the same bits.
    """
    counts = torch.bincount(box, minlength=count)
    place = torch.arange(len(box), device=box.device) - (counts.cumsum(0) - counts)[box]
    apart = values.new_zeros((count, int(counts.max()), values.shape[1]))
    apart[box, place] = values
    return apart.sum(1)


class _Starts:
    """Rows +1 and -1 of some neurons of a node; past the node where it is Linear or Conv."""

    def __init__(
        self, network: BoundNetwork, node: Node, wanted: Tensor, dtype: torch.dtype, tag: Tagger
    ) -> None:
        neurons = wanted.nonzero()[:, 0]
        self._position = wanted.cumsum(0) - 1
        todo = tuple(network.ancestors(node.name))
        rule, off = network.linear.get(node.name), None
        with tag.kind(Memory.A):
            if isinstance(rule, StartRule):
                rows, constant, off = rule.start(neurons, dtype)
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
        self._error = self._constant.abs() * gamma(network.roundings(dtype), dtype)
        if off is not None:
            self._error = self._error + off

    def frontier(self, neurons: Tensor) -> Frontier:
        """Rows [2, R, *shape] of flat neurons [R]."""
        position = self._position[neurons]
        rows, constant = self._rows[position], self._constant[position]
        error = self._error[position].expand(2, -1)
        return Frontier(
            {self._at: torch.stack((rows, -rows))},
            torch.stack((constant, -constant)),
            self._todo,
            error,
        )
