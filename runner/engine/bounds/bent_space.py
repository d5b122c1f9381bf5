"""What can be split where a network bends otherwise than by ReLUs: neurons before anything relaxed.

A sub-domain is a box of such neurons' values. Limits of one neuron cut down what every function and
product that takes it is relaxed over, however its values are moved and added up on the way there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.network.graph import Op

# Narrower than this share of its size, a neuron is not worth a split.
_NARROW = 1e-5
# Functions that bend to the other side, or have a kink, at 0.
_AT_ZERO = frozenset({Op.RELU, Op.SIGMOID, Op.TANH})


@dataclass(frozen=True)
class Variables:
    """Neurons of the node `before` that may be split, in the root's box.

    `neurons` [U]: flat, of the whole node; columns `start` to `stop` of every domain belong to
    them. Of those, `own` [V] are this rank's, at `at` [V] in its own columns. `relu`: nothing but
    ReLUs take them; `zero`: 0 is the best place to cut, where it is not at the edge.
    """

    name: str
    before: str
    neurons: Tensor
    start: int
    stop: int
    own: Tensor
    at: Tensor
    relu: bool
    zero: bool


@dataclass(frozen=True)
class BentSpace:
    """All that can be split, node by node."""

    nodes: tuple[Variables, ...]
    size: int

    @staticmethod
    def of(network: BoundNetwork, intervals: dict[str, Interval]) -> BentSpace:
        """From bounds of every node over one box, [1, *shape]."""
        nodes: list[Variables] = []
        start = 0
        for node in network.graph.nodes[1:]:
            if node.name in network.start_nodes:
                found = _variables(network, node.name, intervals[node.name], start)
                start = found.stop
                nodes.append(found)
        return BentSpace(tuple(nodes), start)

    @property
    def slots(self) -> list[int]:
        """How many of each node's are on this rank."""
        return [len(node.own) for node in self.nodes]

    @cached_property
    def columns(self) -> Tensor:
        """The domain's column that each of this rank's [V] belongs to."""
        return torch.cat([node.start + node.own for node in self.nodes])

    def columns_of(self, values: dict[str, Tensor]) -> Tensor:
        """Of values [B, *shape] by node, those of all neurons that can be split: [B, size]."""
        return torch.cat(
            [values[node.before].flatten(1)[:, node.neurons] for node in self.nodes], 1
        )

    def splittable(self, limits: Interval) -> Tensor:
        """Of limits [B, size]."""
        lower, upper = limits.lower, limits.upper
        width = upper - lower
        found = width.isfinite() & (width > _NARROW * (1 + limits.size))
        return torch.where(self._flags("relu", lower), (lower < 0) & (upper > 0), found)

    def cuts(self, limits: Interval) -> Tensor:
        """Where each neuron is cut [B, size]."""
        lower, upper = limits.lower, limits.upper
        middle = torch.minimum(torch.maximum(lower / 2 + upper / 2, lower), upper)
        relu, zero = self._flags("relu", lower), self._flags("zero", lower)
        inner = zero & (lower < -0.25 * upper) & (upper > -0.25 * lower)
        return torch.where((relu & (lower < 0) & (upper > 0)) | inner, 0.0, middle)

    def _flags(self, name: str, like: Tensor) -> Tensor:
        parts = [like.new_full((n.stop - n.start,), getattr(n, name)) for n in self.nodes]
        return torch.cat(parts) > 0


def _variables(network: BoundNetwork, name: str, whole: Interval, start: int) -> Variables:
    relu = name in network.only_unstable
    lower, upper = whole.lower, whole.upper
    wanted = (lower < 0) & (upper > 0) if relu else lower < upper
    wanted = wanted.reshape(-1)
    neurons = wanted.nonzero()[:, 0]
    numbers = torch.arange(wanted.numel(), device=wanted.device).reshape(lower.shape[1:])
    mine = network.features.local(name, numbers, 0).reshape(-1)
    at = wanted[mine].nonzero()[:, 0]
    takers = {node.op for node in network.graph.nodes if name in node.inputs}
    return Variables(
        name=name,
        before=name,
        neurons=neurons,
        start=start,
        stop=start + len(neurons),
        own=torch.searchsorted(neurons, mine[at]),
        at=at,
        relu=relu,
        zero=bool(takers & _AT_ZERO),
    )
