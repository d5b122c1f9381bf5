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
        *(Op.FUNCTION, Op.MATMUL, Op.EXP_SUMS),
        *CURVES,
    }
)
_MOVING = frozenset({Op.RESHAPE, Op.SELECT, Op.CONCAT})


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
    heads = _heads(graph)
    plan: dict[str, Shares | None] = {}
    for node in graph.nodes:
        plan[node.name] = _shares(node, shapes, plan, ranks, heads.get(node.name, 1))
    return plan


def _heads(graph: Graph) -> dict[str, int]:
    """Of nodes whose values are moved alone until products of matrices take them: how many these
    are, if more than one, of which each takes as many channels.
    """
    found: dict[str, int] = {}
    for node in reversed(graph.nodes):
        if node.op is Op.MATMUL:
            found[node.name] = node.shape[0]
        count = found.get(node.name, 1)
        if count > 1 and node.op in _MOVING | {Op.MATMUL, Op.AFFINE}:
            found |= dict.fromkeys(node.inputs, count)
    return found


def _shares(
    node: Node,
    shapes: Mapping[str, tuple[int, ...]],
    plan: FeaturePlan,
    ranks: int,
    heads: int,
) -> Shares | None:
    if node.op in (Op.INPUT, Op.LINEAR, Op.CONV):
        whole = node.attributes.get("groups", 1) != 1 or not node.shape
        return None if whole else _cut(node.shape[0], ranks, heads)
    inputs = [plan[name] for name in node.inputs]
    follows = node.op in _FOLLOWING or (node.op is Op.CONCAT and node.attributes["axis"] != 0)
    if follows:
        return inputs[0] if all(shares == inputs[0] for shares in inputs) else None
    if inputs[0] is None or not node.shape:
        return None
    before, after = prod(shapes[node.inputs[0]][1:]), prod(node.shape[1:])
    if node.op is Op.RESHAPE:
        return _reshaped(inputs[0], before, after)
    if node.op is Op.SELECT:
        return _moved(inputs[0], before, node)
    return None


def _cut(length: int, ranks: int, heads: int) -> Shares:
    """What belongs to one head of several stays together."""
    if heads == 1 or length % heads:
        return even_shares(length, ranks)
    unit = length // heads
    return Shares(tuple(limit * unit for limit in even_shares(heads, ranks).limits))


def _moved(shares: Shares, inner_before: int, select: Node) -> Shares | None:
    """Of pieces that are moved within themselves, those that a rank has whole."""
    pieces, total = int(str(select.attributes["pieces"])), shares.limits[-1] * inner_before
    flat = [limit * inner_before * pieces for limit in shares.limits]
    if any(limit % total for limit in flat):
        return None
    return Shares(tuple(limit // total * select.shape[0] // pieces for limit in flat))


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
