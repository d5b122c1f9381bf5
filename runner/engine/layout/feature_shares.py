"""The features axis as data: which neurons of which node each rank keeps. No torch.

A node is cut along its first dimension (neurons of a flat node, channels of an image), or is
whole on every rank where its operator cannot be cut. Cuts begin at the input and at every Linear
and Conv; all other operators follow their inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from runner.engine.network.graph import CURVES, Graph, Node, Op

# What each neuron or channel of the output depends on is the same one of the input.
_FOLLOWING = frozenset(
    {
        *(Op.RELU, Op.AFFINE, Op.SIGMOID, Op.TANH, Op.MAXPOOL, Op.AVGPOOL, Op.ADD, Op.SUB),
        Op.FUNCTION,
        *CURVES,
    }
)


@dataclass(frozen=True)
class Shares:
    """Rank r keeps `limits[r]` to `limits[r + 1]` of a node's first dimension."""

    limits: tuple[int, ...]

    def span(self, rank: int) -> slice:
        return slice(self.limits[rank], self.limits[rank + 1])

    def length(self, rank: int) -> int:
        return self.limits[rank + 1] - self.limits[rank]

    @property
    def spans(self) -> list[slice]:
        return [slice(start, stop) for start, stop in pairwise(self.limits)]


# None: whole on every rank.
FeaturePlan = Mapping[str, Shares | None]


def even_shares(length: int, ranks: int) -> Shares:
    """As even as can be; with more ranks than length, some keep nothing."""
    return Shares(tuple(length * rank // ranks for rank in range(ranks + 1)))


def plan_features(graph: Graph, ranks: int) -> FeaturePlan:
    """The shares of every node over `ranks` ranks."""
    shapes = {node.name: node.shape for node in graph.nodes}
    plan: dict[str, Shares | None] = {}
    for node in graph.nodes:
        plan[node.name] = _shares(node, shapes, plan, ranks)
    return plan


def _shares(
    node: Node, shapes: Mapping[str, tuple[int, ...]], plan: FeaturePlan, ranks: int
) -> Shares | None:
    if node.op in (Op.INPUT, Op.LINEAR, Op.CONV):
        whole = node.attributes.get("groups", 1) != 1 or not node.shape
        return None if whole else even_shares(node.shape[0], ranks)
    inputs = [plan[name] for name in node.inputs]
    if node.op in _FOLLOWING:
        return inputs[0] if all(shares == inputs[0] for shares in inputs) else None
    if node.op is Op.RESHAPE and inputs[0] is not None and node.shape:
        return _reshaped(inputs[0], prod(shapes[node.inputs[0]][1:]), prod(node.shape[1:]))
    return None


def _reshaped(shares: Shares, inner_before: int, inner_after: int) -> Shares | None:
    """The same flat ranges in units of the new first dimension, where they are whole units."""
    flat = [limit * inner_before for limit in shares.limits]
    if any(limit % inner_after for limit in flat):
        return None
    return Shares(tuple(limit // inner_after for limit in flat))


def column_row_zones(graph: Graph) -> frozenset[str]:
    """Start nodes inside the paper's Column-Row pairs: between the first layer and the second.

    Layers (Linear, Conv) are paired in order; inside a pair that paper keeps interval bounds.
    """
    order = [node.name for node in graph.nodes if node.op in (Op.LINEAR, Op.CONV)]
    zones = set(order[0::2])
    for node in graph.nodes:
        # What follows the first layer up to the relaxed node belongs to the zone.
        if node.op in (Op.AFFINE, Op.RESHAPE, Op.ADD, Op.SUB) and zones.intersection(node.inputs):
            zones.add(node.name)
    return frozenset(zones)
