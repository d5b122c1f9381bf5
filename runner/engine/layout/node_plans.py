"""A strategy's plan for one network, node by node: what lies where, and what moves. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from runner.contract.layout import Axis
from runner.contract.node_plan import NodePlan
from runner.contract.strategy import Strategy
from runner.engine.layout.block_owners import Block, BlockPlan, plan_blocks
from runner.engine.layout.feature_shares import FeaturePlan, Shares, column_row_zones, plan_features
from runner.engine.network.blocks import weights_of
from runner.engine.network.graph import RELAXED, Graph, Node, Op

VALUE_BYTES = 4


def node_plans(
    graph: Graph, shape_of: Callable[[str], tuple[int, ...]], strategy: Strategy, ranks: int
) -> list[NodePlan]:
    """Of every node but the input. `shape_of`: of a parameter."""
    features: FeaturePlan = dict.fromkeys((node.name for node in graph.nodes), None)
    if Axis.FEATURES in strategy.sharded:
        features = plan_features(graph, strategy.degree(Axis.FEATURES, ranks))
    weights = weights_of(graph, shape_of)
    blocks = plan_blocks(weights, strategy.degree(Axis.WEIGHTS, ranks))
    zones = column_row_zones(graph) if strategy.interval_zones else frozenset()
    wanted = {node.inputs[0] for node in graph.nodes if node.op in RELAXED}
    made = _Plans(graph, features, blocks, strategy, ranks)
    return [made.of(node, node.name in zones & wanted) for node in graph.nodes[1:]]


@dataclass(frozen=True)
class _Plans:
    graph: Graph
    features: FeaturePlan
    blocks: BlockPlan
    strategy: Strategy
    ranks: int

    def of(self, node: Node, interval_only: bool) -> NodePlan:
        shares = self.features[node.name]
        moves, row_bytes, weight_bytes = self._moves(node)
        return NodePlan(
            name=node.name,
            op=str(node.op),
            shape=node.shape,
            weight_bytes=self._weight_bytes(node),
            features=None if shares is None else self._lengths(shares),
            moves=moves,
            row_bytes=row_bytes,
            weight_moved_bytes=weight_bytes,
            interval_only=interval_only,
        )

    def _weight_bytes(self, node: Node) -> tuple[int, ...]:
        if "weight" not in node.parameters:
            return (0,) * self.ranks
        parts = self.blocks[node.parameters["weight"]]
        total = sum(block.bytes for block in parts)
        shares = self.features[node.name]
        if shares is not None:
            return tuple(total * length // node.shape[0] for length in self._lengths(shares))
        if Axis.WEIGHTS in self.strategy.sharded:
            return tuple(_owned(parts, place) for place in self._places(Axis.WEIGHTS))
        return (total,) * self.ranks

    def _lengths(self, shares: Shares) -> tuple[int, ...]:
        return tuple(shares.length(place) for place in self._places(Axis.FEATURES))

    def _places(self, axis: Axis) -> list[int]:
        """Of every rank, along an axis that is spread."""
        groups = self.strategy.along(axis, self.ranks)
        place_of = {rank: place for group in groups for place, rank in enumerate(group)}
        return [place_of[rank] for rank in range(self.ranks)]

    def _moves(self, node: Node) -> tuple[str, int, int]:
        """In words, bytes for each row, and bytes for each block of rows."""
        before = [self.graph.node(name) for name in node.inputs]
        others = self.strategy.degree(Axis.WEIGHTS, self.ranks) - 1
        if self.ranks == 1:
            return "nothing", 0, 0
        if Axis.FEATURES in self.strategy.sharded:
            return self._features_move(node, before)
        if Axis.WEIGHTS in self.strategy.sharded and "weight" in node.parameters:
            weight = sum(block.bytes for block in self.blocks[node.parameters["weight"]])
            if self.strategy.same_ranks(Axis.WEIGHTS, Axis.SPECS):
                return "broadcast W", 0, weight * others
            if self.strategy.same_ranks(Axis.WEIGHTS, Axis.DOMAINS):
                words = "broadcast W or A W, the smaller; in searches W, on request"
            else:
                words = "broadcast W or A W, the smaller"
            product = prod(before[0].shape) * VALUE_BYTES
            return words, product * others, weight * others
        return "nothing", 0, 0

    def _features_move(self, node: Node, before: Sequence[Node]) -> tuple[str, int, int]:
        shares, ranks = self.features[node.name], self.strategy.degree(Axis.FEATURES, self.ranks)
        sizes = sum(b.size for b in before if self.features[b.name] != shares)
        if node.op in (Op.LINEAR, Op.CONV) and shares is not None:
            product = before[0].size * VALUE_BYTES
            if self.features[before[0].name] is None:
                return "all-reduce A W", 2 * product * ranks, 0
            return "reduce-scatter A W", product * (ranks - 1), 0
        if shares is None:
            arriving = any(self.features[b.name] is not None for b in before)
            words = "whole on every rank; passes on own columns" if arriving else "nothing"
            # The gradient of what was passed on is gathered, for α alone.
            return words, 2 * sizes * VALUE_BYTES * ranks if arriving else 0, 0
        return "nothing", 0, 0


def _owned(parts: Sequence[Block], rank: int) -> int:
    return sum(block.bytes for block in parts if block.owner == rank)
