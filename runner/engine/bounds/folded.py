"""A network over one box, with all that cannot bend there folded away.

Over a box most ReLUs of a large network are stable, so that what lies between the open ones is
linear: each open neuron, and each output, is a linear form of the inputs and of the open ReLUs
before it. These forms alone say the same over every part of the box; where convolutions are wide
and few of their neurons open, rows of them take a small part of the work. To leave out stable
neurons is network reduction (Zhong et al. 2023); that a form is a row that passed the network once,
and is charged for that, is our own definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.backward import Frontier, WholeCharges, advance, start_frontier
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.crop import CroppedNetwork, tiles_of
from runner.engine.bounds.form_network import FormNetwork, OpenForm, OpenRelu
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import LEDGER
from runner.engine.bounds.tagging import Tagger
from runner.engine.bounds.tiles import row_block
from runner.engine.network.graph import Node, Op

# Of the multiply-adds that rows of all open neurons take, what they may take over forms: these are
# of plain products, and four times as fast. To make forms takes as long as one box, and a box that
# is cut has two parts.
WORTH = 2.0
# Of all neurons before ReLUs, those that may be open.
MOST_OPEN = 0.5
# What forms may take, in work memories.
MOST_BUDGETS = 4


def folded(
    network: BoundNetwork,
    box: Interval,
    intervals: Mapping[str, Interval],
    budget: Budget,
    tag: Tagger,
    checkpoint: Callable[[], None],
) -> FormNetwork | None:
    """Over a box [1, *input] with bounds of all nodes. None where that would not pay, or where
    something bends that is no ReLU. `checkpoint` is called before each block of rows; it may raise.
    """
    layers = _layers(network, intervals)
    if layers is None or not _pays(network, layers, budget):
        return None
    rows = _Rows(network, box, intervals, layers, budget, tag, checkpoint)
    some = [layer for layer in layers if layer.count]
    names = [layer.before for layer in some] + [network.graph.output]
    relus = tuple(
        OpenRelu(layer.relu.name, layer.before, layer.open.nonzero()[:, 0]) for layer in some
    )
    forms = {name: rows.of(name) for name in names}
    graph = network.graph
    return FormNetwork(box, graph.input, relus, graph.output, forms, graph.dtype)


@dataclass(frozen=True)
class _Layer:
    """A ReLU, and of its flat neurons [n] which are open, and which are active."""

    relu: Node
    open: Tensor
    active: Tensor

    @property
    def before(self) -> str:
        return self.relu.inputs[0]

    @property
    def count(self) -> int:
        return int(self.open.sum())

    def part(self, interval: Interval) -> Interval:
        """Of the open neurons alone."""
        mask = self.open.reshape(interval.lower.shape[1:])
        return Interval(interval.lower[:, mask], interval.upper[:, mask])


def _layers(network: BoundNetwork, intervals: Mapping[str, Interval]) -> list[_Layer] | None:
    """Those that the outputs see, in order; None where something else bends, or ranks have columns
    of their own.
    """
    behind = {node.name for node in network.ancestors(network.graph.output)}
    relaxed = [n for n in network.graph.nodes if n.name in network.relaxed and n.name in behind]
    sources = {node.inputs[0] for node in relaxed}
    plain = all(node.op is Op.RELU for node in relaxed) and len(sources) == len(relaxed)
    if not plain or network.features.ranks > 1 or network.graph.output in sources:
        return None
    found = []
    for node in relaxed:
        interval = intervals[node.inputs[0]]
        lower, upper = interval.lower.flatten(), interval.upper.flatten()
        active = lower >= 0
        # What is no number is open.
        found.append(_Layer(node, ~(active | (upper <= 0)), active))
    return found


def _pays(network: BoundNetwork, layers: Sequence[_Layer], budget: Budget) -> bool:
    columns, values, before, over = network.graph.input.size, 0, 0, 0
    for layer in layers:
        values += layer.count * columns
        columns += layer.count
        before += layer.count * network.work(network.ancestors(layer.before))
        over += layer.count * values
    values += network.outputs * columns
    closed = sum(len(layer.open) - layer.count for layer in layers)
    few = closed >= (1 - MOST_OPEN) * sum(len(layer.open) for layer in layers)
    fits = values * network.dtype.itemsize <= MOST_BUDGETS * budget.bytes
    return few and fits and 0 < over <= WORTH * before


class _Taker:
    """Of a ReLU's coefficients, those of open neurons are taken out; active ones pass."""

    def __init__(self, numbers: Tensor, active: Tensor) -> None:
        self._open = (numbers >= 0).nonzero()[:, 0]
        self.columns = numbers[self._open]
        self._active = active
        self.taken: Tensor | None = None

    def backward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self.taken = rows[:, 0].flatten(1)[:, self._open]
        passed = rows.flatten(2) * self._active.to(rows.dtype)
        return passed.reshape(rows.shape), rows.new_zeros(rows.shape[:2])


class _Rows:
    """Rows of open neurons, and of outputs, that end at open ReLUs and at the input."""

    def __init__(
        self,
        network: BoundNetwork,
        box: Interval,
        intervals: Mapping[str, Interval],
        layers: Sequence[_Layer],
        budget: Budget,
        tag: Tagger,
        checkpoint: Callable[[], None],
    ) -> None:
        self._network, self._intervals = network, intervals
        self._tag, self._checkpoint = tag, checkpoint
        # Rows of float64 take twice the room.
        self._most = row_block(network.graph, budget) // 2
        self._layers = {layer.before: layer for layer in layers}
        graph, device = network.graph, box.lower.device
        # Of the input and of each ReLU, the columns of its values, -1 where they have none.
        whole = torch.arange(graph.input.size, device=device)
        self._numbers = {graph.input.name: whole.reshape(graph.input.shape)}
        self._before: dict[str, int] = {}
        sizes = [box.size.to(LEDGER).flatten()]
        columns = graph.input.size
        for layer in layers:
            self._before[layer.before] = columns
            numbers = torch.where(layer.open, columns - 1 + layer.open.cumsum(0), -1)
            self._numbers[layer.relu.name] = numbers.reshape(layer.relu.shape)
            sizes.append(layer.part(intervals[layer.before]).upper.to(LEDGER)[0].relu())
            columns += layer.count
        self._before[graph.output] = columns
        self._sizes = torch.cat(sizes)

    def of(self, name: str) -> OpenForm:
        """The open neurons of a node before a ReLU, or all outputs."""
        node, dtype = self._network.graph.node(name), self._network.dtype
        if name in self._layers:
            neurons = self._layers[name].open.nonzero()[:, 0]
        else:
            neurons = torch.arange(node.size, device=self._sizes.device)
        columns = self._before[name]
        with self._tag.kind(Memory.A):
            weight = torch.zeros((len(neurons), columns), dtype=dtype, device=neurons.device)
            bias, error = weight.new_zeros(len(neurons)), weight.new_zeros(len(neurons)).to(LEDGER)
            for network, local, of_node in self._blocks(name, neurons):
                self._checkpoint()
                at = torch.searchsorted(neurons, of_node)
                found = self._rows(network, name, local, columns)
                weight[at], bias[at], error[at] = found.weight, found.bias, found.error
        return OpenForm(weight, bias, error)

    def _blocks(self, name: str, neurons: Tensor) -> Iterator[tuple[BoundNetwork, Tensor, Tensor]]:
        tiles = tiles_of(self._network, name, neurons, self._most)
        for tile in tiles:
            yield tile.network, tile.local, tile.neurons
        for some in () if tiles else neurons.split(self._most):
            yield self._network, some, some

    @torch.no_grad()
    def _rows(self, network: BoundNetwork, name: str, neurons: Tensor, columns: int) -> OpenForm:
        """In float64, whatever the network is in, so that all that is lost is how weights round."""
        intervals, numbers = self._intervals, self._numbers
        actives = {layer.relu.name: layer.active for layer in self._layers.values()}
        actives = {relu: on.reshape(numbers[relu].shape) for relu, on in actives.items()}
        if isinstance(network, CroppedNetwork):
            intervals = {n: network.crop(n, intervals[n]) for n in network.spans if n in intervals}
            numbers = {n: network.cut(n, numbers[n]) for n in network.spans if n in numbers}
            actives = {n: network.cut(n, actives[n]) for n in network.spans if n in actives}
        takers = {
            relu: _Taker(numbers[relu].flatten(), on.flatten())
            for relu, on in actives.items()
            if relu in network.relaxed
        }
        both = start_frontier(network, name, neurons, 1, LEDGER)
        count = len(neurons)
        start = Frontier(
            {at: rows[:count] for at, rows in both.pending.items()},
            both.constant[:count],
            both.todo,
            None if both.error is None else both.error[:count],
        )
        done = advance(network, start, takers, {}, WholeCharges(network, intervals))
        whole = start.constant.new_zeros((count, columns))
        ends = [(taker.columns, taker.taken) for taker in takers.values()]
        first = network.graph.input.name
        if first in done.pending:
            ends.append((numbers[first].flatten(), done.pending[first].flatten(1)))
        for at, rows in ends:
            if rows is not None:
                whole[:, at] = rows
        error = done.constant.new_zeros(count) if done.error is None else done.error[:, 0]
        sizes = self._sizes[:columns]
        return OpenForm.rounded(whole, done.constant[:, 0], error, sizes, self._network.dtype)
