"""What can be split where a network bends otherwise than by ReLUs: neurons before anything relaxed.

A sub-domain is a box of such neurons' values. Limits of one neuron cut down what every function and
product that takes it is relaxed over, however its values are moved and added up on the way there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.space import Space, Splittable, located
from runner.engine.network.graph import Node, Op

# Narrower than this share of its size, a neuron is not worth a split.
_NARROW = 1e-5
# Functions that bend to the other side, or have a kink, at 0.
_AT_ZERO = frozenset({Op.RELU, Op.SIGMOID, Op.TANH})


@dataclass(frozen=True)
class Variables(Splittable):
    """`relu`: nothing but ReLUs take them; `zero`: 0 is the best place to cut, where it is not at
    the edge.
    """

    relu: bool
    zero: bool


@dataclass(frozen=True)
class BentSpace(Space[Variables]):
    """All that can be split, node by node."""

    @staticmethod
    def of(network: BoundNetwork, intervals: dict[str, Interval]) -> BentSpace:
        """From bounds of every node over one box, [1, *shape]."""
        nodes: list[Variables] = []
        start = 0
        for node in nodes_to_split(network):
            found = _variables(network, node.name, intervals[node.name], start)
            start = found.stop
            nodes.append(found)
        return BentSpace(tuple(nodes), start)

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


def nodes_to_split(network: BoundNetwork) -> list[Node]:
    """Those with bounds of their own before anything relaxed; not the input, which is halved by a
    search for itself. There is none where functions take nothing but inputs.
    """
    return [node for node in network.graph.nodes[1:] if node.name in network.start_nodes]


def _variables(network: BoundNetwork, name: str, whole: Interval, start: int) -> Variables:
    relu = name in network.only_unstable
    lower, upper = whole.lower, whole.upper
    wanted = (lower < 0) & (upper > 0) if relu else lower < upper
    neurons, own, at = located(network, name, wanted[0])
    takers = {node.op for node in network.graph.nodes if name in node.inputs}
    return Variables(
        name=name,
        before=name,
        neurons=neurons,
        start=start,
        stop=start + len(neurons),
        own=own,
        at=at,
        relu=relu,
        zero=bool(takers & _AT_ZERO),
    )
