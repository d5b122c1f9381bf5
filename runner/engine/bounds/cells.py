"""Boxes whose inputs are read by step functions alone: cut into cells, of which there are finitely
many. In real arithmetic a network has one and the same value all over a cell.

A cell is made of a piece of every such input: a jump of the functions that read it, or what lies
between two jumps. All points of a piece have the values of any one of it, whatever those functions
are at and beside their jumps, and pieces with the same values are one. So a point stands for each,
and what holds at all these points holds everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.live_part import MOVING, numbered
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import LEDGER
from runner.engine.functions import function_of
from runner.engine.functions.family import Function
from runner.engine.network.graph import Op

# That a box is cut into.
MOST_CELLS = 65_536


@dataclass(frozen=True)
class Cells:
    """inputs [K]: flat; points: of each input a value of every piece, in float64."""

    inputs: Tensor
    points: tuple[Tensor, ...]

    def __len__(self) -> int:
        return prod(map(len, self.points))

    def at(self, numbers: Tensor) -> Tensor:
        """Of cells by their numbers [B]: the values of `inputs` [B, K]."""
        found = []
        for points in reversed(self.points):
            found.append(points[numbers % len(points)])
            numbers = numbers // len(points)
        return torch.stack(found[::-1], 1)


@dataclass(frozen=True)
class StepInputs:
    """otherwise [inputs]: which are read by anything but step functions, or leave the network as
    they are; readers: by flat input, the step functions that read it.
    """

    otherwise: Tensor
    readers: Mapping[int, Sequence[Function]]

    @staticmethod
    @torch.no_grad()
    def of(network: BoundNetwork, device: torch.device) -> StepInputs:
        """All ranks ask alike."""
        graph = network.graph
        steps = (function_of(node).steps for node in graph.nodes if node.op is Op.FUNCTION)
        if all(step is None for step in steps):
            return StepInputs(torch.ones(graph.input.size, dtype=torch.bool, device=device), {})
        _, places, _ = numbered(network, device)
        size = graph.input.size
        otherwise = torch.zeros(size, dtype=torch.bool, device=device)
        readers: dict[int, list[Function]] = {}
        for node in graph.nodes[1:]:
            if node.op in MOVING:
                continue
            taken = torch.cat([_inputs(places[name], size) for name in node.inputs])
            function = function_of(node) if node.op is Op.FUNCTION else None
            if function is None or function.steps is None:
                otherwise[taken] = True
                continue
            for number in taken.unique().tolist():
                readers.setdefault(number, []).append(function)
        otherwise[_inputs(places[graph.output], size)] = True
        return StepInputs(otherwise, readers)

    def cells(self, box: Interval, most: int = MOST_CELLS) -> Cells | None:
        """Of a box [1, *input] in float64; None where not all inputs that vary are such, or their
        cells are too many.
        """
        varies = box.varying.flatten()
        inputs = varies.nonzero()[:, 0]
        if not len(inputs) or bool((varies & self.otherwise).any()):
            return None
        lower, upper = (end.flatten()[inputs].tolist() for end in (box.lower, box.upper))
        points: list[Tensor] = []
        for number, low, high in zip(inputs.tolist(), lower, upper, strict=True):
            found = _points(self.readers.get(number, ()), low, high, most)
            if found is None:
                return None
            points.append(found.to(inputs.device))
        cells = Cells(inputs, tuple(points))
        return cells if len(cells) <= most else None


def _inputs(places: Tensor, size: int) -> Tensor:
    """Flat inputs among values by their numbers; those are the first, from 1 on."""
    return places[(places > 0) & (places <= size)] - 1


def _points(functions: Sequence[Function], low: float, high: float, most: int) -> Tensor | None:
    """One of each piece of [low, high], [pieces]; None where they are not known."""
    ends = torch.tensor([[low], [high]], dtype=LEDGER)
    jumps: set[float] = set()
    for function in functions:
        steps = None if function.steps is None else function.steps.between(low, high, most)
        if steps is None or bool(function.outside(*ends).any()):
            return None
        jumps.update(steps)
    places = sorted(jumps)
    # An end that is no jump is of the piece beside it.
    found = [*places, *(end for end in (low, high) if end not in jumps)]
    for place, after in pairwise(places):
        between = (place + after) / 2
        if not place < between < after:
            return None
        found.append(between)
    points = torch.tensor(sorted(set(found)), dtype=LEDGER)
    values = [function.value(points).tolist() for function in functions]
    first: dict[tuple[float, ...], int] = {}
    for number, of_point in enumerate(zip(*values, strict=True)):
        first.setdefault(of_point, number)
    return points[list(first.values())] if functions else points[:1]
