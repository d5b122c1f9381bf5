"""Linear bounds of single neurons over the whole box: forms, made once by a backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.backward import (
    Relaxations,
    WholeCharges,
    advance,
    local_interval,
    start_frontier,
)
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.tagging import Tagger

# Neurons whose forms are made at once.
AT_ONCE = 128


class NeuronForms:
    """Of a network over one box, with CROWN's lines."""

    def __init__(
        self,
        network: BoundNetwork,
        intervals: dict[str, Interval],
        tag: Tagger,
        checkpoint: Callable[[], None],
    ) -> None:
        self._network, self._intervals = network, intervals
        self._tag, self._checkpoint = tag, checkpoint
        self._box = intervals[network.graph.input.name]
        self._relaxations: Relaxations = {
            name: rule.relax(self._before(name)) for name, rule in network.relaxed.items()
        }

    def _before(self, relaxed: str) -> Interval:
        before = self._network.graph.node(relaxed).inputs[0]
        return local_interval(self._network, before, self._intervals[before])

    def of(self, name: str, neurons: Tensor) -> tuple[Tensor, Tensor]:
        """Of some flat neurons z [U] of a node, and of -z: rows [2, U, inputs] and constants [2, U]
        in float64, so that rows · x + constants are no greater in real arithmetic.
        """
        network, source = self._network, self._network.graph.input.name
        inputs = self._box.lower.numel()
        charges = WholeCharges(network, self._intervals)
        rows, constants = [], []
        for some in neurons.split(AT_ONCE):
            self._checkpoint()
            with torch.no_grad(), self._tag.kind(Memory.A):
                start = start_frontier(network, name, some, 1, self._box.lower.dtype)
                done = advance(network, start, self._relaxations, {}, charges)
                whole = network.features.whole(source, done.pending[source])
                constant = done.constant if done.error is None else done.constant - done.error
                shape = 2, len(some)
                rows.append(whole.reshape(*shape, inputs))
                constants.append(network.features.total(constant).reshape(shape))
        with self._tag.kind(Memory.BOUNDS):
            return torch.cat(rows, 1), torch.cat(constants, 1)
