"""Interval bounds of the cells of one box, many at once: a network's value at the point of each
cell, and one error of every neuron for all of them.

What a value is off by follows from how large values are, and hardly differs from cell to cell. So a
cell costs no more than a plain pass through what depends on the inputs that its pieces are of.
Everything is in float64 and holds in real arithmetic: see runner.engine.bounds.rounding, §5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.cells import Cells
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.live_part import MOVING, numbered
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import LEDGER, grown, lost, outwards, unit
from runner.engine.bounds.rule_kinds import LinearRule
from runner.engine.bounds.tagging import Tagger
from runner.engine.bounds.whole_values import EXACT, NEAR, whole_values
from runner.engine.network.evaluate import apply
from runner.engine.network.graph import Node, Op

# Beside a value and 1: an error that is one cell's own, where a function jumps nearby, and that is
# not charged to all the others.
OWN = 0.1
# Values of the widest node that live at the same time.
LIVE_COPIES = 3
MOST_AT_ONCE = 512


@dataclass(frozen=True)
class _Balls:
    """Of a node in every cell: centre [B, *shape] ± error [1, *shape], the same for all. B is 1
    where cells do not differ.
    """

    centre: Tensor
    error: Tensor

    @cached_property
    def most(self) -> Tensor:
        """The greatest centre: [1, *shape]."""
        return self.centre.amax(0, keepdim=True)

    @cached_property
    def size(self) -> Tensor:
        """No less than any absolute value: [1, *shape]."""
        far = torch.maximum(self.most, -self.centre.amin(0, keepdim=True))
        return grown(far + self.error, 2, 1)

    def cells(self, count: int) -> Tensor:
        return self.centre.expand(count, *self.centre.shape[1:])


class CellPass:
    """Over the cells of `root`, a box [1, *input] in float64. `batch`: cells that are bounded at
    once. All ranks do the same.
    """

    def __init__(
        self, network: BoundNetwork, root: Interval, cells: Cells, tag: Tagger, budget: Budget
    ) -> None:
        self._network, self._cells, self._tag = network, cells, tag
        graph = network.graph
        widest = max(node.size for node in graph.nodes)
        fits = budget.bytes // (LEDGER.itemsize * LIVE_COPIES * widest)
        self.batch = max(1, min(fits, budget.scaled(MOST_AT_ONCE)))
        self._uses = _last_uses(network)
        with torch.no_grad(), tag.kind(Memory.BOUNDS):
            self._whole = {
                name: mask
                for name, mask in whole_values(network, root).items()
                if bool(mask.any()) and graph.node(name).op not in MOVING
            }
            self._root = _Balls(*root.ball)
            self._live = self._reached()
            self._fixed = {graph.input.name: self._root}
            for node in graph.nodes[1:]:
                if node.name not in self._live:
                    before = [self._fixed[name] for name in node.inputs]
                    alone = torch.ones(1, dtype=torch.bool, device=root.lower.device)
                    self._fixed[node.name], _ = self._passed(node, before, alone)

    @torch.no_grad()
    def least(self, numbers: Tensor, rows: Tensor) -> Tensor:
        """Lower bounds [B, S] of rows [S, outputs] in cells by their numbers [B]; -inf in one that
        is worth a pass of its own.
        """
        graph, count = self._network.graph, len(numbers)
        with self._tag.kind(Memory.BOUNDS):
            values = {graph.input.name: self._start(numbers)}
            known = torch.ones(count, dtype=torch.bool, device=numbers.device)
            for node in graph.nodes[1:]:
                if node.name in self._live:
                    before = [values.get(name) or self._fixed[name] for name in node.inputs]
                    values[node.name], known = self._passed(node, before, known)
                for name in self._uses[node.name]:
                    values.pop(name, None)
            output = values.get(graph.output) or self._fixed[graph.output]
            return torch.where(known[:, None], _lower(output, rows, count), -torch.inf)

    def _start(self, numbers: Tensor) -> _Balls:
        """An input whose pieces these are has a value, and no error."""
        centre = self._root.centre.flatten(1).repeat(len(numbers), 1)
        centre[:, self._cells.inputs] = self._cells.at(numbers)
        error = self._root.error.flatten(1).clone()
        error[:, self._cells.inputs] = 0.0
        shape = self._network.graph.input.shape
        return _Balls(centre.reshape(-1, *shape), error.reshape(1, *shape))

    def _reached(self) -> frozenset[str]:
        """Nodes that have a value which differs between cells."""
        network, inputs = self._network, self._cells.inputs
        first, places, count = numbered(network, inputs.device)
        made = torch.zeros(count, dtype=torch.bool, device=inputs.device)
        made[1 + inputs] = True
        found = set()
        for node in network.graph.nodes[1:]:
            if node.op in MOVING:
                reached = bool(made[places[node.name]].any())
            else:
                reached = any(bool(made[places[name]].any()) for name in node.inputs)
                made[first[node.name] : first[node.name] + node.size] = reached
            if reached:
                found.add(node.name)
        return frozenset(found)

    def _passed(self, node: Node, before: list[_Balls], known: Tensor) -> tuple[_Balls, Tensor]:
        """Of a node, and in which cells it is still known: [B]."""
        if node.name in self._network.linear:
            rule = self._network.linear[node.name]
            count = max(len(balls.centre) for balls in before)
            found = _linear(rule, before, count)
        elif node.op is Op.RELU:
            found = _relu(before[0])
        elif node.op is Op.MAXPOOL:
            found = _Balls(*(apply(node, {}, x) for x in (before[0].centre, before[0].error)))
        elif node.op is Op.PRODUCT:
            found = _product(before[0])
        else:
            found, known = self._bent(node, before[0], known)
        return self._settled(node.name, found), known

    def _bent(self, node: Node, before: _Balls, known: Tensor) -> tuple[_Balls, Tensor]:
        """By the interval of every cell."""
        centre, error = before.centre, before.error
        low, high = outwards(centre - error, centre + error)
        exact = error == 0
        ends = Interval(torch.where(exact, centre, low), torch.where(exact, centre, high))
        middle, radius = self._network.rule(node.name).interval(ends).ball
        if len(middle) > 1:
            far = ~(radius <= OWN * (1 + middle.abs()))
            known = known & ~far.flatten(1).any(1)
            gone = ~known.reshape(-1, *(1,) * (middle.dim() - 1))
            middle, radius = middle.masked_fill(gone, 0.0), radius.masked_fill(gone, 0.0)
        return _Balls(middle, radius.amax(0, keepdim=True)), known

    def _settled(self, name: str, balls: _Balls) -> _Balls:
        """Whole numbers that are near to one are it."""
        if name not in self._whole:
            return balls
        sure = self._whole[name] & (balls.error < NEAR) & (balls.size < EXACT)
        centre = torch.where(sure, balls.centre.round(), balls.centre)
        return _Balls(centre, balls.error.masked_fill(sure, 0.0))


def _linear(rule: LinearRule, before: list[_Balls], count: int) -> _Balls:
    centre = rule.forward(*(balls.cells(count) for balls in before))
    error = rule.spread([b.error for b in before], [b.size for b in before], 0)
    return _Balls(centre, error)


def _relu(before: _Balls) -> _Balls:
    """What is negative in all cells is 0, whatever it is off by."""
    # No sum that is positive is rounded to one below 0.
    off = before.most + before.error < 0
    return _Balls(before.centre.relu(), before.error.masked_fill(off, 0.0))


def _product(before: _Balls) -> _Balls:
    """|x y - c d| is at most |x| e(y) + |y| e(x), and what c d is rounded by."""
    (x, y), (size, other) = before.centre.unbind(1), before.size.unbind(1)
    of_x, of_y = before.error.unbind(1)
    error = size * of_y + other * of_x + size * other * unit(LEDGER)
    return _Balls(x * y, grown(error, 4, 4))


def _lower(output: _Balls, rows: Tensor, count: int) -> Tensor:
    terms = rows.shape[1]
    size, error = output.size.flatten(), output.error.flatten()
    off = grown((rows.abs() * lost(error, size, terms)).sum(1), terms, 2)
    lower = output.cells(count).flatten(1) @ rows.T - off
    # The last difference is rounded as well.
    return lower - lost(torch.zeros_like(lower), lower.abs() + off, 1)


def _last_uses(network: BoundNetwork) -> dict[str, list[str]]:
    """By node, whose values nobody needs after it."""
    last: dict[str, str] = {}
    for node in network.graph.nodes[1:]:
        last.update(dict.fromkeys(node.inputs, node.name))
    found: dict[str, list[str]] = {node.name: [] for node in network.graph.nodes}
    for name, user in last.items():
        if name != network.graph.output:
            found[user].append(name)
    return found
