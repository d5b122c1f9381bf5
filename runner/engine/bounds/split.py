"""What can be split: the neurons of all ReLUs that are unstable in the root's box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.split_relu import SplitNode
from runner.engine.network.graph import Op


class Splittable(Protocol):
    """Neurons of the node `before`: see `SplitNode`."""

    @property
    def name(self) -> str: ...

    @property
    def before(self) -> str: ...

    @property
    def neurons(self) -> Tensor: ...

    @property
    def start(self) -> int: ...

    @property
    def stop(self) -> int: ...

    @property
    def own(self) -> Tensor: ...


class Space(Protocol):
    """What can be split, on this rank and on all: see `SplitSpace`."""

    @property
    def nodes(self) -> Sequence[Splittable]: ...

    @property
    def size(self) -> int: ...

    @property
    def slots(self) -> list[int]: ...

    @property
    def columns(self) -> Tensor: ...

    def columns_of(self, values: dict[str, Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class SplitSpace:
    """All that can be split, node by node. A phase [B, size] (int8) says of each neuron whether
    it is active (1), inactive (-1) or not split (0).
    """

    nodes: tuple[SplitNode, ...]
    size: int

    @staticmethod
    def of(network: BoundNetwork, intervals: dict[str, Interval]) -> SplitSpace:
        """From bounds of every node over one box, [1, *shape]."""
        nodes: list[SplitNode] = []
        start = 0
        for node in network.graph.nodes:
            if node.op is Op.RELU:
                split = _split_node(network, node.name, node.inputs[0], intervals, start)
                start = split.stop
                nodes.append(split)
        return SplitSpace(tuple(nodes), start)

    @property
    def slots(self) -> list[int]:
        """How many multipliers each node has on this rank."""
        return [len(node.own) for node in self.nodes]

    @cached_property
    def columns(self) -> Tensor:
        """The phase's column that each of this rank's multipliers [V] belongs to."""
        return torch.cat([node.start + node.own for node in self.nodes])

    def columns_of(self, values: dict[str, Tensor]) -> Tensor:
        """Of values [B, *shape] by node, those of the unstable neurons' inputs: [B, size]."""
        return torch.cat(
            [values[node.before].flatten(1)[:, node.neurons] for node in self.nodes], 1
        )

    def to(self, dtype: torch.dtype) -> SplitSpace:
        return SplitSpace(tuple(node.to(dtype) for node in self.nodes), self.size)


def _split_node(
    network: BoundNetwork, name: str, before: str, intervals: dict[str, Interval], start: int
) -> SplitNode:
    whole = intervals[before]
    crossing = ((whole.lower < 0) & (whole.upper > 0)).reshape(-1)
    neurons = crossing.nonzero()[:, 0]
    shape = whole.lower.shape[1:]
    numbers = torch.arange(crossing.numel(), device=crossing.device).reshape(shape)
    mine = network.features.local(before, numbers, 0).reshape(-1)
    at = crossing[mine].nonzero()[:, 0]
    lower = network.features.local(before, whole.lower, 1).reshape(-1)
    return SplitNode(
        name=name,
        before=before,
        neurons=neurons,
        start=start,
        stop=start + len(neurons),
        own=torch.searchsorted(neurons, mine[at]),
        at=at,
        slope=(lower >= 0).to(lower.dtype),
    )
