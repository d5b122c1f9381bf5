"""Operators off the hot path that are relaxed: MaxPool, Sigmoid, Tanh. All grow in every input."""

from __future__ import annotations

from torch import Tensor

from runner.engine.bounds import relaxation
from runner.engine.bounds.interval import Interval
from runner.engine.network.evaluate import apply
from runner.engine.network.graph import Node


class MonotoneRule:
    def __init__(self, node: Node) -> None:
        self._node = node

    def forward(self, *inputs: Tensor) -> Tensor:
        return apply(self._node, {}, *inputs)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(*relaxation.interval(self._node, inputs[0].lower, inputs[0].upper))

    def relax(self, before: Interval) -> relaxation.Relaxation:
        return relaxation.relax(self._node, before.lower, before.upper)
