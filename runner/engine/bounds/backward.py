"""The backward pass: from rows on a start node to a lower bound over the input box.

A pass that is charged ends in bounds that hold in real arithmetic
(runner.engine.bounds.rounding); one that is not is for searching alone, and proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.mixed import Parametrised
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.relu import ReluRelaxation
from runner.engine.bounds.rounding import LEDGER, below, charged, floor, gamma, sums_in
from runner.engine.bounds.rule_kinds import NarrowRule, RuleRelaxation, StartRule
from runner.engine.bounds.split_relu import SplitRelaxation
from runner.engine.network.graph import Node

Relaxations = Mapping[str, RuleRelaxation | ReluRelaxation | SplitRelaxation]
Slopes = Mapping[str, Tensor]
# What a node's coefficients [S, B, *shape] become for what is known of its values, and a constant.
Pulls = Mapping[str, Callable[[Tensor], tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Frontier:
    """A lower bound of the start rows: sum of A · node over `pending`, plus `constant - error`.

    pending: A [S, B, *shape] by node; constant: [S, B]; todo: nodes still to pass, in order;
    error: [S, B], what rounding has cost so far, None where nothing is charged. Both in float64.
    """

    pending: Mapping[str, Tensor]
    constant: Tensor
    todo: tuple[Node, ...]
    error: Tensor | None = None


class Charges(Protocol):
    """What rounding costs rows over the boxes that they are bounded over."""

    def product(self, node: Node, rows: Tensor) -> Tensor | None:
        """[S, B], for passing a node whose coefficients are sums; None for any other."""
        ...

    def values(self, name: str, rows: Tensor) -> Tensor:
        """[S, B], for coefficients of a node that will not be multiplied before they change."""
        ...


@dataclass(frozen=True)
class WholeCharges:
    """Of rows [S, B] over the B boxes that `intervals` are of, or over parts of one box."""

    network: BoundNetwork
    intervals: Mapping[str, Interval]

    def product(self, node: Node, rows: Tensor) -> Tensor | None:
        interval = self.intervals[node.name]
        if interval.sums is None or interval.floor is None:
            return None
        terms = self.network.terms(node.name, rows.dtype)
        sums = sums_in(interval.sums, interval.off, rows.dtype, terms)
        charge = charged(rows, sums, terms, interval.floor)
        return self.network.features.counted(node.name, charge)

    def values(self, name: str, rows: Tensor) -> Tensor:
        size = local_interval(self.network, name, self.intervals[name]).size.flatten(1)
        charge = charged(rows, size.to(rows.dtype), self.network.roundings(rows.dtype))
        return self.network.features.counted(name, charge)


@runtime_checkable
class Shortcut(Protocol):
    """A network that charged rows pass in a way of its own, over one box, along CROWN's lines."""

    def back(
        self, start: Frontier, relaxations: Relaxations, intervals: Mapping[str, Interval]
    ) -> Frontier: ...


def frontier_at(network: BoundNetwork, start: str, rows: Tensor) -> Frontier:
    """Rows [S, B, *shape] on a node's output."""
    constant = rows.new_zeros(rows.shape[:2], dtype=LEDGER)
    return Frontier({start: rows}, constant, tuple(network.ancestors(start)))


def start_frontier(
    network: BoundNetwork, name: str, neurons: Tensor, batch: int, dtype: torch.dtype
) -> Frontier:
    """Rows +1 and -1 of flat neurons [N], [2 N, B, *shape]; past the node itself where it is Linear
    or Conv.
    """
    rule, off = network.linear.get(name), None
    todo = tuple(network.ancestors(name))
    if isinstance(rule, StartRule):
        rows, constant, off = rule.start(neurons, dtype)
        at, todo = todo[0].inputs[0], todo[1:]
    else:
        node = network.graph.node(name)
        rows = torch.zeros((len(neurons), node.size), dtype=dtype, device=neurons.device)
        rows.scatter_(1, neurons[:, None], 1.0)
        rows = network.features.local(name, rows.reshape(-1, *node.shape), 1)
        constant = rows.new_zeros(len(neurons))
        at = name
    both = torch.cat((rows, -rows)).unsqueeze(1)
    both_constants = torch.cat((constant, -constant)).to(LEDGER)
    constants = both_constants.unsqueeze(1).expand(-1, batch)
    # The other constants are charged with their products.
    error = constants.abs() * gamma(network.roundings(dtype), dtype)
    if off is not None:
        error = error + torch.cat((off, off)).unsqueeze(1)
    return Frontier({at: both.expand(-1, batch, *both.shape[2:])}, constants, todo, error)


def advance(
    network: BoundNetwork,
    frontier: Frontier,
    relaxations: Relaxations,
    slopes: Slopes,
    charges: Charges | None = None,
    *,
    stop_at_relaxed: bool = False,
    pulls: Pulls | None = None,
    fine: AbstractSet[str] = frozenset(),
) -> Frontier:
    """Passes the nodes of `todo`, all or up to the first relaxed one; `pulls` by node; those of
    `fine` in float64.
    """
    pending, constant = dict(frontier.pending), frontier.constant
    bill = _Bill(charges, frontier.error)
    # Of inputs of ReLUs, where rows can be other than zero, if not nearly everywhere.
    alive: dict[str, Tensor | None] = {}
    for position, node in enumerate(frontier.todo):
        if stop_at_relaxed and node.name in network.relaxed:
            return Frontier(pending, constant, frontier.todo[position:], bill.error)
        rows = pending.pop(node.name)
        if node.name in fine:
            rows = rows.to(LEDGER)
        added: Tensor | None
        sources = node.inputs
        if pulls is not None and node.name in pulls:
            rows, added = pulls[node.name](rows)
            alive[node.name] = None
            constant = constant + network.features.counted(node.name, added)
        if node.name in network.relaxed:
            if node.name in network.unmultiplied or node.name == network.graph.output:
                bill.values(node.name, rows)
            bill.product(node, rows)
            bill.shares(network, node, relaxations[node.name], rows)
            parts, added, of_input = _relaxed(node, rows, relaxations, slopes)
            if of_input is not None:
                sources = (*sources, network.graph.input.name)
                parts.append(_of_planes(network, node.name, of_input))
        else:
            bill.product(node, rows)
            rule, outputs = network.linear[node.name], alive.get(node.name)
            if outputs is not None and isinstance(rule, NarrowRule):
                parts, added = rule.backward_at(rows, outputs)
            else:
                parts, added = rule.backward(rows)
        for name, part in zip(sources, parts, strict=True):
            alive[name] = None if name in pending else _alive(node, relaxations)
            if name in pending:
                bill.meeting(name, pending[name], part)
                part = pending[name] + part
            pending[name] = part
        if added is not None:
            constant = constant + network.features.counted(node.name, added)
    return Frontier(pending, constant, (), bill.error)


def _alive(node: Node, relaxations: Relaxations) -> Tensor | None:
    relaxation = relaxations.get(node.name)
    return relaxation.alive if isinstance(relaxation, ReluRelaxation | SplitRelaxation) else None


class _Bill:
    """What a pass is charged. No gradient: multipliers are chosen as if nothing rounded."""

    def __init__(self, charges: Charges | None, error: Tensor | None) -> None:
        self._charges = charges
        self.error = error

    def product(self, node: Node, rows: Tensor) -> None:
        if self._charges is not None:
            with torch.no_grad():
                self._add(self._charges.product(node, rows))

    def values(self, name: str, rows: Tensor) -> None:
        if self._charges is not None:
            with torch.no_grad():
                self._add(self._charges.values(name, rows))

    def shares(self, network: BoundNetwork, node: Node, relaxation: object, rows: Tensor) -> None:
        if self._charges is not None and isinstance(relaxation, SplitRelaxation):
            with torch.no_grad():
                charge = relaxation.charge(rows.flatten(2))
                if charge is not None:
                    self._add(network.features.counted(node.name, charge))

    def meeting(self, name: str, one: Tensor, other: Tensor) -> None:
        if self._charges is not None:
            with torch.no_grad():
                self._add(self._charges.values(name, one.abs() + other.abs()))

    def _add(self, charge: Tensor | None) -> None:
        if charge is not None:
            self.error = charge.to(LEDGER) if self.error is None else self.error + charge


def _relaxed(
    node: Node, rows: Tensor, relaxations: Relaxations, slopes: Slopes
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """A of what comes before, a constant, and what own neurons' planes make of the input."""
    relaxation = relaxations[node.name]
    if isinstance(relaxation, ReluRelaxation):
        flat, constant = relaxation.backward(rows.flatten(2), slopes.get(node.name))
        return [flat.reshape(rows.shape)], constant, None
    if isinstance(relaxation, SplitRelaxation):
        flat, constant, of_input = relaxation.backward(rows.flatten(2), slopes[node.name])
        return [flat.reshape(rows.shape)], constant, of_input
    if isinstance(relaxation, Parametrised):
        part, constant = relaxation.backward(rows, slopes.get(node.name))
        return [part], constant, None
    part, constant = relaxation.backward(rows)
    return [part], constant, None


def _of_planes(network: BoundNetwork, relaxed: str, of_input: Tensor) -> Tensor:
    """Own columns of what all planes make of the input, of what own ones do [S, B, inputs]."""
    features, graph = network.features, network.graph
    whole = features.total(features.counted(relaxed, of_input))
    shaped = whole.reshape(*whole.shape[:2], *graph.input.shape)
    return features.arriving(graph.input.name, shaped)


def least(rows: Tensor, box: Interval) -> Tensor:
    """The least value of A · x over a box: [S, B, *shape] -> [S, B]."""
    return _Least.apply(rows, box)  # type: ignore[no-any-return]


def least_charged(rows: Tensor, box: Interval, terms: int) -> Tensor:
    """`least`, and no more than it in real arithmetic."""
    size = box.size.flatten(1)
    error = charged(rows.detach(), size, terms, floor(size, terms))
    return least(rows, box) - error


class _Least(torch.autograd.Function):
    """Its gradient is the point of the box where the least value is taken."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, box: Interval) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.box = box
        flat = rows.flatten(2).transpose(0, 1)
        centre, radius = (
            side @ of_box.flatten(1).unsqueeze(2)
            for side, of_box in zip((flat, flat.abs()), box.ball, strict=True)
        )
        return (centre - radius).squeeze(2).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        weight = gradients[0].reshape(*gradients[0].shape, *(1,) * (rows.dim() - 2))
        centre, radius = ctx.box.ball
        return (centre - rows.sign() * radius) * weight, None


def concretize(
    network: BoundNetwork, frontier: Frontier, box: Interval, *, charge: bool = False
) -> Tensor:
    """The least value over the box, [S, B], of a frontier that has reached the input, in the box's
    precision. `charge`: as the pass was; what rounding has cost is then taken off.
    """
    name = network.graph.input.name
    bound = frontier.constant
    if name in frontier.pending:
        rows = frontier.pending[name]
        mine = local_interval(network, name, box).to(rows.dtype)
        terms = network.terms(name, rows.dtype)
        bound = bound + (least_charged(rows, mine, terms) if charge else least(rows, mine))
    if charge and frontier.error is not None:
        bound = bound - frontier.error
    bound = network.features.total(bound)
    return below(bound, box.lower.dtype) if charge else bound.to(box.lower.dtype)


def local_interval(network: BoundNetwork, name: str, interval: Interval) -> Interval:
    """The part of a node's bounds [B, *shape] that goes with this rank's columns."""
    return Interval(
        network.features.local(name, interval.lower, 1),
        network.features.local(name, interval.upper, 1),
    )
