"""Relaxations and charges of rows that belong to one box each, of a batch of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.backward import Frontier, local_interval
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.mixed import MixedRelaxation
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.relaxation import ElementwiseRelaxation
from runner.engine.bounds.relu import ReluLines, ReluRelaxation
from runner.engine.bounds.rounding import (
    COEFFICIENT_ROUNDINGS,
    charged_at,
    floor,
    gamma,
    rate,
    sums_in,
)
from runner.engine.bounds.rule_kinds import RuleRelaxation
from runner.engine.bounds.rules import ReluRule
from runner.engine.network.graph import OF_EACH_VALUE, Node


class BoxLines:
    """The relaxations of all nodes that a batch of boxes has bounds for so far, made once, and the
    boxes.
    """

    def __init__(
        self,
        network: BoundNetwork,
        box: Interval,
        intervals: Mapping[str, Interval],
        dtype: torch.dtype,
    ) -> None:
        self.network = network
        self._intervals = intervals
        self._dtype = dtype
        inputs = local_interval(network, network.graph.input.name, box).to(dtype)
        centre, radius = inputs.ball
        size, terms = inputs.size.flatten(1), network.terms(network.graph.input.name, dtype)
        self._centre, self._floor = centre.flatten(1), floor(size, terms)
        # Few inputs are split: a row of them is short.
        self._reach = radius.flatten(1) + size * gamma(terms + COEFFICIENT_ROUNDINGS, dtype)
        self._relu: dict[str, ReluLines] = {}
        self._functions: dict[str, ElementwiseRelaxation] = {}
        self._rounding: dict[str, tuple[Tensor, Tensor]] = {}

    def of(self, box: Tensor, start: Frontier) -> dict[str, RuleRelaxation | ReluRelaxation]:
        """Of the relaxed nodes on the way, each row with the lines of its box [R]."""
        found: dict[str, RuleRelaxation | ReluRelaxation] = {}
        for node in start.todo:
            if node.name in self.network.relaxed:
                found[node.name] = self._relaxation(node, box)
        return found

    def least(self, rows: Tensor, box: Tensor) -> Tensor:
        """The least value of A · x over the box of each R: A [S, R, *input] -> [S, R]."""
        flat = rows.flatten(2)
        centre, reach, least = (
            values.index_select(0, box) for values in (self._centre, self._reach, self._floor)
        )
        return (flat * centre).sum(2) - (flat.abs() * reach).sum(2) - least

    def product_rate(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Of each box [B]: what a row is charged for passing a node, and the node's floor."""
        interval = self._intervals[name]
        if interval.sums is None or interval.floor is None:
            return None
        if name not in self._rounding:
            terms = self.network.terms(name, self._dtype)
            sums = sums_in(interval.sums, interval.off, self._dtype, terms)
            self._rounding[name] = rate(sums, terms), interval.floor.to(self._dtype)
        return self._rounding[name]

    def value_rate(self, name: str) -> Tensor:
        """Of each box [B]: what coefficients of a node are charged."""
        size = local_interval(self.network, name, self._intervals[name]).size
        return rate(size.flatten(1).to(self._dtype), self.network.roundings(self._dtype))

    def _relaxation(self, node: Node, box: Tensor) -> RuleRelaxation | ReluRelaxation:
        rule = self.network.relaxed[node.name]
        before = node.inputs[0]
        mine = local_interval(self.network, before, self._intervals[before]).to(self._dtype)
        if node.op in OF_EACH_VALUE and not isinstance(rule, ReluRule):
            return self._function(node, mine).select(box)
        if not isinstance(rule, ReluRule):
            return rule.relax(Interval(mine.lower[box], mine.upper[box]))
        if node.name not in self._relu:
            self._relu[node.name] = ReluLines.over(mine)
        return self._relu[node.name].select(box)

    def _function(self, node: Node, before: Interval) -> ElementwiseRelaxation:
        """Of all boxes at once: lines of a function take long."""
        if node.name not in self._functions:
            made = self.network.relaxed[node.name].relax(before)
            plain = made.plain if isinstance(made, MixedRelaxation) else made
            if not isinstance(plain, ElementwiseRelaxation):
                raise TypeError(f"{node.op} of {node.name} has no lines of each value")
            self._functions[node.name] = plain
        return self._functions[node.name]


@dataclass(frozen=True)
class BoxCharges:
    """Of rows [S, R] over the boxes [R] that they belong to; see runner.engine.bounds.rounding."""

    lines: BoxLines
    box: Tensor

    def product(self, node: Node, rows: Tensor) -> Tensor | None:
        of_boxes = self.lines.product_rate(node.name)
        if of_boxes is None:
            return None
        rates, least = (values.index_select(0, self.box) for values in of_boxes)
        charge = charged_at(rows, rates, least)
        return self.lines.network.features.counted(node.name, charge)

    def values(self, name: str, rows: Tensor) -> Tensor:
        rates = self.lines.value_rate(name).index_select(0, self.box)
        return self.lines.network.features.counted(name, charged_at(rows, rates))
