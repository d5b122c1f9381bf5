"""The bound graph with its rules: what the passes walk."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from runner.engine.bounds.affine import affine_map
from runner.engine.bounds.features import Features, WholeFeatures
from runner.engine.bounds.relaxed import BentRule
from runner.engine.bounds.rounding import additions
from runner.engine.bounds.rule_kinds import LinearRule, RelaxedRule
from runner.engine.bounds.rules import (
    AddRule,
    AffineRule,
    AveragePoolRule,
    ConcatRule,
    ElementwiseAffineRule,
    ReluRule,
    ReshapeRule,
)
from runner.engine.bounds.select import SelectRule
from runner.engine.bounds.weights import Weights, dtype_of
from runner.engine.network.graph import OF_EACH_VALUE, RELAXED, Graph, Node, Op

# They only move and add coefficients.
PLAIN = frozenset({Op.ADD, Op.SUB, Op.RESHAPE, Op.SELECT, Op.CONCAT})


class BoundNetwork:
    """Rules of every node, and which nodes are start nodes.

    `linear` and `relaxed` part the nodes (the input is in neither). `start_nodes` feed a relaxed
    node, so their bounds are wanted; `exact` are those whose interval bounds cannot be improved;
    of `unmultiplied` the values of coefficients are charged.
    """

    def __init__(self, graph: Graph, weights: Weights, features: Features | None = None) -> None:
        self.graph = graph
        self.dtype = dtype_of(graph)
        self.features = features or WholeFeatures()
        self._shapes = {node.name: node.shape for node in graph.nodes}
        self.linear: dict[str, LinearRule] = {}
        self.relaxed: dict[str, RelaxedRule] = {}
        self._bent: dict[str, BentRule] = {}
        for node in graph.nodes[1:]:
            if node.op is Op.RELU:
                self.relaxed[node.name] = ReluRule()
            elif node.op in RELAXED:
                rule = self.features.bent(node, BentRule(node))
                self.relaxed[node.name] = self._bent[node.name] = rule
            else:
                plain = self._linear_rule(node, weights)
                self.linear[node.name] = self.features.rule(node, plain)
        self._nodes = {node.name: node for node in graph.nodes}
        of_relu = {n.inputs[0] for n in graph.nodes if n.op is Op.RELU}
        bent = [n for n in graph.nodes if n.name in self.relaxed and n.op is not Op.RELU]
        parted = frozenset(name for node in bent for name in self._starts(node.inputs[0]))
        self.exact = _exact_by_interval(graph)
        known = self._known(parted | of_relu)
        parted |= {self._argument(name) for name in known & parted} - self.exact
        parted -= known
        self.start_nodes = parted | (of_relu - known)
        self.unmultiplied = self._unmultiplied()
        # A ReLU is exact where its input is stable, so only unstable neurons need bounds.
        self.only_unstable = frozenset(
            name
            for name in self.start_nodes - parted
            if all(
                node.op is Op.RELU
                for node in graph.nodes
                if name in node.inputs and node.name in self.relaxed
            )
        )

    def _known(self, starts: frozenset[str]) -> frozenset[str]:
        """Those that are a function of each value of a node whose bounds are wanted anyway, or are
        exact: no line gives more than the function over these.
        """
        return frozenset(
            name
            for name in starts
            if self._nodes[name].op in OF_EACH_VALUE and self._argument(name) in starts | self.exact
        )

    def _argument(self, name: str) -> str:
        """What a function is of, before it was given another shape."""
        before = self._nodes[self._nodes[name].inputs[0]]
        while before.op is Op.RESHAPE:
            before = self._nodes[before.inputs[0]]
        return before.name

    def _starts(self, name: str) -> set[str]:
        """The nodes whose bounds are wanted where a node's are: what it is moved and added up
        from, where that has fewer neurons (scores of an attention, before all their differences).
        """
        sources: set[str] = set()
        todo, seen = [name], {name}
        while todo:
            node = self._nodes[todo.pop()]
            if node.op in PLAIN:
                todo.extend(set(node.inputs) - seen)
                seen.update(node.inputs)
            else:
                sources.add(node.name)
        size = sum(self._nodes[source].size for source in sources)
        if size > self._nodes[name].size:
            return {name}
        return sources - {self.graph.input.name}

    def _unmultiplied(self) -> frozenset[str]:
        """Relaxed nodes whose coefficients may come from another one without a product between:
        what rounding did to those is charged nowhere else.
        """
        found: set[str] = set()
        todo = [self._nodes[name].inputs[0] for name in self.relaxed]
        seen = set(todo)
        while todo:
            node = self._nodes[todo.pop()]
            if node.name in self.relaxed:
                found.add(node.name)
            elif node.op in PLAIN:
                todo.extend(set(node.inputs) - seen)
                seen.update(node.inputs)
        return frozenset(found)

    def _linear_rule(self, node: Node, weights: Weights) -> LinearRule:
        before = self._shapes[node.inputs[0]]
        match node.op:
            case Op.LINEAR | Op.CONV:
                return AffineRule(affine_map(node, before, weights))
            case Op.ADD | Op.SUB:
                return AddRule(1 if node.op is Op.ADD else -1)
            case Op.AFFINE:
                return ElementwiseAffineRule(node, weights)
            case Op.RESHAPE:
                return ReshapeRule(before, node.shape)
            case Op.SELECT:
                return SelectRule(node, before, weights)
            case Op.CONCAT:
                axis = int(node.attributes["axis"])  # type: ignore[arg-type]
                return ConcatRule(axis, [self._shapes[name][axis] for name in node.inputs])
            case Op.AVGPOOL:
                return AveragePoolRule(node, before)
        raise ValueError(f"no linear rule for operator {node.op} of node {node.name}")

    def roundings(self, dtype: torch.dtype) -> int:
        """Of the additions to the constant of a pass, and of those of the ranks' parts."""
        return additions(2 * len(self.graph.nodes) + self.features.ranks, dtype)

    def terms(self, name: str, dtype: torch.dtype) -> int:
        """Roundings that are charged for passing a node that sums, or ending at the input."""
        if name == self.graph.input.name:
            return self.graph.input.size + 2 + self.roundings(dtype)
        rule = self._bent[name] if name in self._bent else self.linear[name]
        return rule.terms(dtype) + self.roundings(dtype)

    def rule(self, name: str) -> LinearRule | RelaxedRule:
        return self.linear[name] if name in self.linear else self.relaxed[name]

    def forward(self, x: Tensor) -> Tensor:
        """[B, *input] -> flat outputs [B, outputs]; differentiable."""
        values = {self.graph.input.name: x}
        for node in self.graph.nodes[1:]:
            values[node.name] = self.rule(node.name).forward(*(values[i] for i in node.inputs))
        return values[self.graph.output].flatten(1)

    def whole(self, name: str, own: Tensor, leading: int) -> Tensor:
        """Of a rank's own values [leading dimensions, *own shape] of a node: those of all ranks."""
        whole = own.new_zeros((*own.shape[:leading], *self._shapes[name]))
        self.features.local(name, whole, leading).copy_(own)
        return self.features.total(self.features.counted(name, whole))

    def work(self, nodes: Iterable[Node]) -> int:
        """Multiply-adds of one row, or column, that passes these nodes."""
        of_rule = {name: rule.summands for name, rule in self.linear.items()}
        return sum(node.size * of_rule.get(node.name, 1) for node in nodes)

    @property
    def outputs(self) -> int:
        return self.graph.node(self.graph.output).size

    def ancestors(self, start: str) -> list[Node]:
        """`start` and all it depends on, in reverse topological order, without the input."""
        wanted = {start}
        order = []
        for node in reversed(self.graph.nodes[1:]):
            if node.name in wanted:
                wanted.update(node.inputs)
                order.append(node)
        return order


def _exact_by_interval(graph: Graph) -> frozenset[str]:
    """Nodes that mix the box's coordinates at most once and without a relaxation before."""
    separate = {graph.input.name}  # every neuron depends on one coordinate of its own
    exact = {graph.input.name}
    for node in graph.nodes[1:]:
        if len(node.inputs) != 1:
            continue
        before = node.inputs[0]
        if node.op in (Op.RESHAPE, Op.AFFINE, Op.SELECT):
            if before in separate and node.attributes.get("once", True):
                separate.add(node.name)
            if before in exact:
                exact.add(node.name)
        elif node.op in (Op.LINEAR, Op.CONV, Op.AVGPOOL) and before in separate:
            exact.add(node.name)
    return frozenset(exact)
