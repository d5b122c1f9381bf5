"""What can be split: the neurons of all ReLUs that are unstable in the root's box."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.space import Space, located
from runner.engine.bounds.split_relu import SplitNode
from runner.engine.network.graph import Op


@dataclass(frozen=True)
class SplitSpace(Space[SplitNode]):
    """All that can be split, node by node. A phase [B, size] (int8) says of each neuron whether
    it is active (1), inactive (-1) or not split (0).
    """

    @staticmethod
    def of(
        network: BoundNetwork, intervals: dict[str, Interval], start_node: str | None = None
    ) -> SplitSpace:
        """From bounds of every node before one, the output where none is named, over one box,
        [1, *shape].
        """
        before = {node.name for node in network.ancestors(start_node or network.graph.output)}
        nodes: list[SplitNode] = []
        start = 0
        for node in network.graph.nodes:
            if node.op is Op.RELU and node.name in before:
                split = _split_node(network, node.name, node.inputs[0], intervals, start)
                start = split.stop
                nodes.append(split)
        return SplitSpace(tuple(nodes), start)

    def to(self, dtype: torch.dtype) -> SplitSpace:
        return SplitSpace(tuple(node.to(dtype) for node in self.nodes), self.size)


def bends_otherwise(network: BoundNetwork) -> bool:
    """Whether there is more to split than ReLUs."""
    return any(network.graph.node(name).op is not Op.RELU for name in network.relaxed)


def _split_node(
    network: BoundNetwork, name: str, before: str, intervals: dict[str, Interval], start: int
) -> SplitNode:
    whole = intervals[before]
    neurons, own, at = located(network, before, ((whole.lower < 0) & (whole.upper > 0))[0])
    lower = network.features.local(before, whole.lower, 1).reshape(-1)
    return SplitNode(
        name=name,
        before=before,
        neurons=neurons,
        start=start,
        stop=start + len(neurons),
        own=own,
        at=at,
        slope=(lower >= 0).to(lower.dtype),
    )
