"""Operators whose relaxation is auto_LiRPA's: MaxPool, Sigmoid, Tanh."""

from __future__ import annotations

from torch import Tensor

from runner.bounds.interval import Interval
from runner.network import lirpa
from runner.network.evaluate import evaluate_node
from runner.network.graph import Node


class LirpaRelaxation:
    """A linear lower bound over one box of inputs."""

    def __init__(self, node: Node, before: Interval) -> None:
        self._relaxation = lirpa.relax(node, before.lower, before.upper)

    def backward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self._relaxation.backward(rows)


class LirpaRule:
    def __init__(self, node: Node) -> None:
        self._node = node

    def forward(self, *inputs: Tensor) -> Tensor:
        return evaluate_node(self._node, {}, *inputs)

    def interval(self, *inputs: Interval) -> Interval:
        """MaxPool, Sigmoid and Tanh grow in every input."""
        return Interval(self.forward(inputs[0].lower), self.forward(inputs[0].upper))

    def relax(self, before: Interval) -> LirpaRelaxation:
        return LirpaRelaxation(self._node, before)
