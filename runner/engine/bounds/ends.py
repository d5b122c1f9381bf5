"""Rows that end at a narrow node, where a form is known that keeps every error as a variable.

Behind an image that few inputs make (a generator), thousands of rows would pass all its layers
again. What its neurons have in common is in the variables that they share: those of the box, and
one for each neuron that bends. Each goes forward once, to a narrow node, and rows from behind that
node need to go no further back than to it. Lines before it are those of the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.engine.bounds.bands import Band, band_of
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.form import Form
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import absolute_sum, gamma, grown, smallest, unit
from runner.engine.network.graph import Graph, Node, Op

WIDE, NARROW = torch.float64, torch.float32
# Of the largest error of a node, what is left an error, and not made a variable.
LEAST_ERROR = 1e-3
# Of the work of rows that go back to the input, what those to a node before may take.
WORTH = 0.125
# Less work of rows of a box than this, in multiply-adds, is done before it is asked how.
LEAST_WORK = 2_000_000_000
# Of the budget, what the form of one box may take, whose columns stay.
MOST_BUDGETS = 8
# Copies of columns that live at the same time.
LIVE_COPIES = 4
_ROUNDINGS = 8


def passages(graph: Graph) -> list[Node]:
    """Nodes that all ways from the input to the output go through, in order."""
    place = {node.name: index for index, node in enumerate(graph.nodes)}
    reach, found = 0, []
    users: dict[str, int] = {}
    for node in graph.nodes:
        for name in node.inputs:
            users[name] = max(users.get(name, 0), place[node.name])
    for index, node in enumerate(graph.nodes):
        if index and reach <= index:
            found.append(node)
        reach = max(reach, users.get(node.name, index))
    return found


def bending(node: Node, before: Interval) -> int:
    """Neurons of a relaxed node that have an error of their own, in the box with the most."""
    if node.op is not Op.RELU:
        return node.size
    unstable = (before.lower < 0) & (before.upper > 0)
    return int(unstable.flatten(1).sum(1).max())


@dataclass(frozen=True)
class EndForms:
    """Of a node, one form for each box, [1, *own shape] each, in float64, of the neurons that the
    rank keeps; the first `inputs` variables are those of the flat input.
    """

    node: Node
    forms: list[Form]
    inputs: int

    @property
    def columns(self) -> int:
        """Of all boxes."""
        return sum(len(form.symbols) for form in self.forms)


class Ends:
    """Where rows of a network may end before its input."""

    def __init__(self, network: BoundNetwork, budget: Budget) -> None:
        self._network = network
        self._most = MOST_BUDGETS * budget.bytes // WIDE.itemsize
        self._ends = [node for node in passages(network.graph) if node.name in network.linear]
        self._starts = [
            node for node in network.graph.nodes if node.name in network.start_nodes - network.exact
        ]
        self._work: dict[str, int] = {}
        self._place = {node.name: index for index, node in enumerate(network.graph.nodes)}

    def may_pay(self, node: Node) -> bool:
        """Whether rows of a start node can cost so much of any box."""
        return 2 * node.size * self._work_to(node.name) >= LEAST_WORK

    def best(
        self, name: str, rows: int, intervals: Mapping[str, Interval], known: str | None = None
    ) -> Node | None:
        """Where so many rows of a start node over all boxes, and those of all neurons of the later
        ones, had best end; None: where they do already, at the input or at the node that is known.
        """
        boxes = len(intervals[self._network.graph.input.name].lower)
        if rows * self._work_to(name) < LEAST_WORK * boxes:
            return None
        place = self._place[name]
        counts = {n.name: 2 * boxes * n.size for n in self._starts if self._after(n, place)}
        counts[name] = rows
        least = WORTH * sum(count * self._work_to(of) for of, count in counts.items())
        if known is not None:
            least = self._cost(known, counts, self._columns(known, intervals)[0])
        found = None
        for node in self._ends:
            if self._place[node.name] > place:
                break
            columns, work = self._columns(node.name, intervals)
            cost = boxes * work + self._cost(node.name, counts, columns)
            if cost < least and columns * node.size <= self._most:
                least, found = cost, node
        return found

    def _cost(self, end: str, counts: Mapping[str, int], columns: int) -> int:
        """Of so many rows of each start node that end at a node with so many variables."""
        saved = self._work_to(end) - columns * self._network.graph.node(end).size
        return sum(count * (self._work_to(of) - saved) for of, count in counts.items() if of != end)

    def _after(self, node: Node, place: int) -> bool:
        return self._place[node.name] > place

    def _work_to(self, name: str) -> int:
        """Of a row from a node to the input."""
        if name not in self._work:
            self._work[name] = self._network.work(self._network.ancestors(name))
        return self._work[name]

    def _columns(self, end: str, intervals: Mapping[str, Interval]) -> tuple[int, int]:
        """Of one box: how many variables a node's form has, and what they take to come there."""
        network = self._network
        columns, work = network.graph.input.size, 0
        for node in network.ancestors(end)[::-1]:
            work += columns * network.work([node])
            if node.name in network.relaxed:
                columns += bending(node, intervals[node.inputs[0]])
        return columns, work


@dataclass(frozen=True)
class _Passed:
    """How values pass a relaxed node: `band`, its slopes 0 where a constant is as near; `middle`
    and `own`: centre and error that come with it [1, *shape]; `index`: of the errors that are made
    variables, and `values` [K].
    """

    band: Band | None
    middle: Tensor
    own: Tensor
    index: Tensor
    values: Tensor

    @staticmethod
    def of(
        network: BoundNetwork, node: Node, intervals: Mapping[str, Interval], box: int
    ) -> _Passed:
        before, after = (_of_box(intervals[name], box) for name in (node.inputs[0], node.name))
        middle, own = after.ball
        band = band_of(node, network.relaxed[node.name], before)
        if band is not None:
            centre, half = band.rest.ball
            constant = ~(half < own)  # Not `>=`: what is no number is replaced.
            mask = constant.unsqueeze(1) if band.parts else constant
            band = replace(band, slopes=band.slopes.masked_fill(mask, 0.0))
            middle = torch.where(constant, middle, centre)
            own = torch.where(constant, own, half)
        middle, own = middle.to(WIDE), own.clamp(min=0).to(WIDE)
        flat = torch.where(own.isfinite(), own, 0.0).flatten()
        index = (flat > LEAST_ERROR * flat.amax()).nonzero()[:, 0]
        rest = own.flatten().index_fill(0, index, 0.0).reshape(own.shape)
        # A variable has a column of lower precision, which is no smaller.
        values = flat[index].to(NARROW)
        values = values * (1 + 4 * unit(NARROW)) + smallest(NARROW)
        return _Passed(band, middle, rest, index, values)

    def sloped(self, x: Tensor, *, absolute: bool = False) -> Tensor:
        """[N, *input] to [N, *shape], in the precision of x."""
        if self.band is None:
            return x.new_zeros((len(x), *self.middle.shape[1:]))
        slopes = self.band.slopes.to(x.dtype)
        band = replace(self.band, slopes=slopes.abs() if absolute else slopes)
        return band.sloped(band.slopes, x.unsqueeze(1))[:, 0]


def _of_box(interval: Interval, box: int) -> Interval:
    return Interval(interval.lower[box : box + 1], interval.upper[box : box + 1])


@torch.no_grad()
def end_forms(
    network: BoundNetwork,
    end: Node,
    intervals: Mapping[str, Interval],
    budget: Budget,
    checkpoint: Callable[[], None] = lambda: None,
) -> EndForms:
    """From bounds of all nodes before, over boxes; `checkpoint` is called on the way."""
    boxes = len(intervals[network.graph.input.name].lower)
    passes = (_Pass(network, end, intervals, box) for box in range(boxes))
    forms = [of_box.form(budget, checkpoint) for of_box in passes]
    return EndForms(end, forms, network.graph.input.size)


class _Pass:
    """Over one box. Centre and columns of the box are in float64; those of errors, which are small
    and many, in float32.
    """

    def __init__(
        self,
        network: BoundNetwork,
        end: Node,
        intervals: Mapping[str, Interval],
        box: int,
    ) -> None:
        self._network, self._end = network, end
        self._nodes = network.ancestors(end.name)[::-1]
        self._input = network.graph.input
        self._box = _of_box(intervals[self._input.name], box).to(WIDE)
        self._passed = {
            node.name: _Passed.of(network, node, intervals, box)
            for node in self._nodes
            if node.name in network.relaxed
        }
        # What absolute values add up to: of the centre and the box's columns, and of errors'.
        self._sizes: dict[str, Tensor] = {}
        self._small: dict[str, Tensor] = {}

    def form(self, budget: Budget, checkpoint: Callable[[], None]) -> Form:
        centre, columns = self._main()
        found = [self._own(columns)]
        for part in self._errors(budget):
            found.append(self._own(part).to(WIDE))
            checkpoint()
        own = torch.cat(found).unsqueeze(1)
        count, off = len(own), self._off(len(own))
        return Form(tuple(range(count)), own, self._own(centre), self._own(off)).settled()

    def _own(self, values: Tensor) -> Tensor:
        """Of values [N, *shape] of the node: the neurons that the rank keeps."""
        return self._network.features.local(self._end.name, values, 1).contiguous()

    def _main(self) -> tuple[Tensor, Tensor]:
        """Centre [1, *shape] and columns [inputs, *shape] of the node."""
        centre, radius = self._box.ball
        columns = torch.diag(radius.flatten()).reshape(-1, *self._input.shape)
        values = {self._input.name: (centre, columns)}
        self._sizes[self._input.name] = centre.abs() + absolute_sum(columns, 0)
        for node in self._nodes:
            before = [values[name] for name in node.inputs]
            if node.name in self._passed:
                passed = self._passed[node.name]
                (x, along) = before[0]
                made = passed.sloped(x) + passed.middle, passed.sloped(along)
            else:
                rule = self._network.linear[node.name]
                made = (
                    rule.forward(*(x for x, _ in before)),
                    rule.directions(*(a for _, a in before)),
                )
            values[node.name] = made
            self._sizes[node.name] = made[0].abs() + absolute_sum(made[1], 0)
        return values[self._end.name]

    def _errors(self, budget: Budget) -> Iterator[Tensor]:
        """Columns [K, *shape] of the node, of the errors of each relaxed node before."""
        for place, node in enumerate(self._nodes):
            if node.name not in self._passed:
                continue
            passed, behind = self._passed[node.name], self._nodes[place + 1 :]
            widest = max(node.size, *(later.size for later in behind))
            # On their way columns are whole on every rank: of several, each has less to spare.
            copies = LIVE_COPIES * self._network.features.ranks
            some = max(1, budget.bytes // (copies * NARROW.itemsize * widest))
            for index, values in zip(
                passed.index.split(some), passed.values.split(some), strict=True
            ):
                if len(index):
                    columns = values.new_zeros((len(index), node.size))
                    columns.scatter_(1, index[:, None], values[:, None])
                    yield self._moved(node, columns.reshape(-1, *node.shape), behind)

    def _moved(self, start: Node, columns: Tensor, behind: list[Node]) -> Tensor:
        """From a node on."""
        known = {start.name: columns}
        self._count(start, columns)
        for node in behind:
            if not any(name in known for name in node.inputs):
                continue
            shapes = [self._network.graph.node(name).shape for name in node.inputs]
            before = [
                known[name] if name in known else columns.new_zeros((len(columns), *shape))
                for name, shape in zip(node.inputs, shapes, strict=True)
            ]
            if node.name in self._passed:
                known[node.name] = self._passed[node.name].sloped(before[0])
            else:
                known[node.name] = self._network.linear[node.name].directions(*before)
            self._count(node, known[node.name])
        nothing = columns.new_zeros((len(columns), *self._end.shape))
        return known.get(self._end.name, nothing)

    def _count(self, node: Node, columns: Tensor) -> None:
        size = grown(columns.abs().sum(0, dtype=WIDE).unsqueeze(0), len(columns), 1)
        self._small[node.name] = self._small.get(node.name, torch.zeros_like(size)) + size

    def _off(self, count: int) -> Tensor:
        """What the node may be off by, beside its columns [1, *shape]."""
        off = {self._input.name: torch.zeros_like(self._sizes[self._input.name])}
        for node in self._nodes:
            parts = [self._rounded(name, off[name], node) for name in node.inputs]
            sizes = [self._sizes[name] + self._small_of(name) for name in node.inputs]
            if node.name in self._passed:
                passed = self._passed[node.name]
                size = passed.sloped(sizes[0], absolute=True) + passed.middle.abs()
                moved = passed.sloped(parts[0], absolute=True) + passed.own
                found = moved + size * (2 * _ROUNDINGS * unit(WIDE))
                found = grown(found, 2 * _ROUNDINGS, count + 2)
            else:
                rule = self._network.linear[node.name]
                found = rule.spread(parts, sizes, count)
            off[node.name] = found + self._underflow(node, count)
        return off[self._end.name]

    def _small_of(self, name: str) -> Tensor:
        return self._small.get(name, torch.zeros_like(self._sizes[name]))

    def _rounded(self, name: str, off: Tensor, node: Node) -> Tensor:
        """An input's error, with what columns in float32 lose on their way through a node."""
        terms = 2 + self._summands(node) + _ROUNDINGS
        return off + self._small_of(name) * (1.01 * gamma(terms, NARROW))

    def _summands(self, node: Node) -> int:
        return 1 if node.name in self._passed else self._network.linear[node.name].summands

    def _underflow(self, node: Node, count: int) -> float:
        return smallest(NARROW) * count * (self._summands(node) + _ROUNDINGS)
