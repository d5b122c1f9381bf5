"""Sub-domains where every ReLU is decided: the network is linear there, and an LP decides them.

The LP's answer is not trusted. Its dual values are multipliers of the rows and of the splits, with
which a backward pass proves the bound as any other.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.contract.vocabulary import EnginePart
from runner.engine.bounds.bent_space import BentSpace
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import gamma
from runner.engine.bounds.split import SplitSpace

OPTIMAL = 0


@dataclass(frozen=True)
class Certificate:
    """Multipliers that may prove a leaf: a mix `row` [outputs] of its rows, and of each unstable
    neuron [N] what its split counts with. The leaf is closed if the row is then greater than
    `threshold`.
    """

    row: Tensor
    threshold: float
    multipliers: Tensor


class Leaves:
    """Of one box. Linear only where ReLU is the only operator that is not."""

    def __init__(
        self,
        network: BoundNetwork,
        space: SplitSpace | BentSpace,
        intervals: dict[str, Interval],
        without: AbstractSet[EnginePart] = frozenset(),
    ) -> None:
        """`without`: parts that are left out; no leaf is then solved."""
        self._network = network
        self._space = space
        self._intervals = {name: i.to(torch.float64) for name, i in intervals.items()}
        self._left_out = EnginePart.LEAVES in without
        relus = isinstance(space, SplitSpace)
        self._linear = relus and network.relaxed.keys() == {node.name for node in space.nodes}

    def solve(
        self, phases: Tensor, lower: Tensor, rows: Tensor, thresholds: Tensor
    ) -> Certificate | Tensor | None:
        """Of unstable neurons [N], their phases and lower limits; the unsafe region is
        rows @ outputs <= thresholds (rows [K, outputs]). What may prove that the leaf has no point
        of it, or such a point [1, *input]; None where the LP cannot tell.
        """
        if not self._linear or self._left_out:
            return None
        box = self._intervals[self._network.graph.input.name]
        centre, radius = box.centre, box.radius
        free = radius.flatten().nonzero()[:, 0]
        moved = torch.zeros((1 + len(free), radius.numel()), dtype=torch.float64)
        moved[torch.arange(1, 1 + len(free)), free.cpu()] = radius.flatten()[free].cpu()
        x = centre + moved.to(radius.device).reshape(-1, *radius.shape[1:])
        inputs, outputs = self._affine(x, lower)
        split = (phases != 0).nonzero()[:, 0]
        constraints = -(inputs * phases.to(torch.float64))[:, split].T
        margins = outputs @ rows.T
        margins[0] -= thresholds
        limits, sizes = _scaled(torch.cat((constraints, margins.T)))
        solved = _least_maximum(limits)
        if solved is None:
            return None
        least, moves, duals = solved
        if least <= 0:
            point = centre.clone().flatten()
            point[free] += torch.from_numpy(moves).to(point.device) * radius.flatten()[free]
            return point.reshape(centre.shape)
        weights = torch.from_numpy(duals).to(sizes.device) / sizes
        multipliers = torch.zeros(len(phases), dtype=torch.float64, device=sizes.device)
        multipliers[split] = weights[: len(split)]
        return self._certificate(weights[len(split) :], rows, thresholds, multipliers)

    def _certificate(
        self, weights: Tensor, rows: Tensor, thresholds: Tensor, multipliers: Tensor
    ) -> Certificate:
        """The mix of the rows, and its threshold with what mixing may have rounded."""
        size = self._intervals[self._network.graph.output].size.flatten()
        sums = weights @ (rows.abs() @ size + thresholds.abs())
        rounding = float(sums) * gamma(2 * len(rows) + 8, torch.float64)
        return Certificate(weights @ rows, float(weights @ thresholds) + rounding, multipliers)

    def _affine(self, x: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of unstable neurons and outputs: row 0 at the first point, then differences."""
        network = self._network
        starts = {node.name: node for node in self._space.nodes}
        values = {network.graph.input.name: x}
        for node in network.graph.nodes[1:]:
            before = [values[name] for name in node.inputs]
            if node.name in starts:
                flat = before[0].flatten(1)
                values[node.name] = (flat * self._active(node.name, lower)).reshape(before[0].shape)
            else:
                values[node.name] = network.linear[node.name].forward(*before)
        inputs = self._space.columns_of(values)
        outputs = values[network.graph.output].flatten(1)
        for found in (inputs, outputs):
            found[1:] -= found[:1].clone()
        return inputs, outputs

    def _active(self, name: str, lower: Tensor) -> Tensor:
        node = next(node for node in self._space.nodes if node.name == name)
        active = (self._intervals[node.before].lower >= 0).flatten()
        active[node.neurons] = lower[node.start : node.stop] >= 0
        return active.to(torch.float64)


def _least_maximum(rows: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], Any] | None:
    """The least t with c + a · x <= t for all rows (c, a), x in [-1, 1]; that x, and the dual
    values of the rows, which are at least 0. None where the solver finds none.
    """
    # Takes longer to import than most instances take; few searches come to a leaf.
    from scipy.optimize import linprog

    count = rows.shape[1] - 1
    goal = np.concatenate((np.zeros(count), [1.0]))
    matrix = np.concatenate((rows[:, 1:], -np.ones((len(rows), 1))), 1)
    sides = [(-1.0, 1.0)] * count + [(None, None)]
    found = linprog(goal, matrix, -rows[:, 0], bounds=sides)
    if found.status != OPTIMAL:
        return None
    return float(found.fun), found.x[:-1], np.clip(-found.ineqlin.marginals, 0.0, None)


def _scaled(rows: Tensor) -> tuple[NDArray[np.float64], Tensor]:
    """Rows of linear functions over [-1, 1], each divided by its greatest possible size."""
    size = rows.abs().sum(1).clamp(min=1e-300)
    scaled: NDArray[np.float64] = (rows / size[:, None]).cpu().numpy()
    return scaled, size
