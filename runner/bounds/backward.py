"""The backward pass: from rows on a start node to a lower bound over the input box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.bounds.interval import Interval
from runner.bounds.network import BoundNetwork
from runner.bounds.relu import ReluRelaxation
from runner.bounds.rules import Relaxation
from runner.bounds.split_relu import SplitRelaxation
from runner.network.graph import Node

Relaxations = Mapping[str, Relaxation | ReluRelaxation | SplitRelaxation]
Slopes = Mapping[str, Tensor]


@dataclass(frozen=True)
class Frontier:
    """A valid lower bound of the start rows: sum of A · node over `pending`, plus `constant`.

    pending: A [S, B, *shape] by node; constant: [S, B]; todo: nodes still to pass, in order.
    """

    pending: Mapping[str, Tensor]
    constant: Tensor
    todo: tuple[Node, ...]


def frontier_at(network: BoundNetwork, start: str, rows: Tensor) -> Frontier:
    """Rows [S, B, *shape] on a node's output."""
    constant = rows.new_zeros(rows.shape[:2])
    return Frontier({start: rows}, constant, tuple(network.ancestors(start)))


def advance(
    network: BoundNetwork,
    frontier: Frontier,
    relaxations: Relaxations,
    slopes: Slopes,
    *,
    stop_at_relaxed: bool = False,
) -> Frontier:
    """Passes the nodes of `todo`, all or up to the first relaxed one."""
    pending, constant = dict(frontier.pending), frontier.constant
    for position, node in enumerate(frontier.todo):
        added: Tensor | None
        if node.name in network.relaxed:
            if stop_at_relaxed:
                return Frontier(pending, constant, frontier.todo[position:])
            parts, added = _relaxed(node, pending.pop(node.name), relaxations, slopes)
        else:
            parts, added = network.linear[node.name].backward(pending.pop(node.name))
        for name, part in zip(node.inputs, parts, strict=True):
            pending[name] = pending[name] + part if name in pending else part
        if added is not None:
            constant = constant + network.features.counted(node.name, added)
    return Frontier(pending, constant, ())


def _relaxed(
    node: Node, rows: Tensor, relaxations: Relaxations, slopes: Slopes
) -> tuple[list[Tensor], Tensor]:
    relaxation = relaxations[node.name]
    if isinstance(relaxation, ReluRelaxation):
        flat, constant = relaxation.backward(rows.flatten(2), slopes.get(node.name))
        return [flat.reshape(rows.shape)], constant
    if isinstance(relaxation, SplitRelaxation):
        flat, constant = relaxation.backward(rows.flatten(2), slopes[node.name])
        return [flat.reshape(rows.shape)], constant
    part, constant = relaxation.backward(rows)
    return [part], constant


def least(rows: Tensor, box: Interval) -> Tensor:
    """The least value of A · x over a box: [S, B, *shape] -> [S, B]."""
    return _Least.apply(rows, box)  # type: ignore[no-any-return]


class _Least(torch.autograd.Function):
    """Its gradient is the point of the box where the least value is taken."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, box: Interval) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.box = box
        flat = rows.flatten(2).transpose(0, 1)
        centre = flat @ box.centre.flatten(1).unsqueeze(2)
        radius = flat.abs() @ box.radius.flatten(1).unsqueeze(2)
        return (centre - radius).squeeze(2).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        weight = gradients[0].reshape(*gradients[0].shape, *(1,) * (rows.dim() - 2))
        return (ctx.box.centre - rows.sign() * ctx.box.radius) * weight, None


def concretize(network: BoundNetwork, frontier: Frontier, box: Interval) -> Tensor:
    """The least value over the box, [S, B], of a frontier that has reached the input."""
    name = network.graph.input.name
    bound = frontier.constant
    if name in frontier.pending:
        bound = bound + least(frontier.pending[name], local_interval(network, name, box))
    return network.features.total(bound)


def local_interval(network: BoundNetwork, name: str, interval: Interval) -> Interval:
    """The part of a node's bounds [B, *shape] that goes with this rank's columns."""
    return Interval(
        network.features.local(name, interval.lower, 1),
        network.features.local(name, interval.upper, 1),
    )
