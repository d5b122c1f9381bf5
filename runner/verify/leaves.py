"""Sub-domains where every ReLU is decided: the network is linear there, and an LP decides them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.bounds.interval import Interval
from runner.bounds.network import BoundNetwork
from runner.bounds.split import SplitSpace

# What HiGHS may be wrong by, of values scaled to 1, with room to spare.
TOLERANCE = 1e-6
OPTIMAL, INFEASIBLE = 0, 2


@dataclass(frozen=True)
class Leaf:
    """Bounds lower, upper and phases [N] of the unstable neurons' inputs; rows [K, outputs] and
    thresholds [K] in float64: the unsafe region is rows @ outputs <= thresholds.
    """

    lower: Tensor
    upper: Tensor
    phases: Tensor
    rows: Tensor
    thresholds: Tensor


@dataclass(frozen=True)
class Answer:
    """`closed`: proved to hold no counterexample. `point` [1, *input]: the nearest to one."""

    closed: bool
    point: Tensor | None = None


class Leaves:
    """Of one box. Linear only where ReLU is the only operator that is not."""

    def __init__(
        self, network: BoundNetwork, space: SplitSpace, intervals: dict[str, Interval]
    ) -> None:
        self._network = network
        self._space = space
        self._intervals = intervals
        self._linear = network.relaxed.keys() == {node.name for node in space.nodes}

    def solve(self, leaf: Leaf) -> Answer:
        """Neither closed nor a point where the LP cannot tell."""
        if not self._linear:
            return Answer(False)
        box = self._intervals[self._network.graph.input.name].to(torch.float64)
        centre, radius = box.centre, box.radius
        free = radius.flatten().nonzero()[:, 0]
        moved = torch.zeros((1 + len(free), radius.numel()), dtype=torch.float64)
        moved[torch.arange(1, 1 + len(free)), free.cpu()] = radius.flatten()[free].cpu()
        x = centre + moved.to(radius.device).reshape(-1, *radius.shape[1:])
        inputs, outputs = self._affine(x, leaf)
        signs = leaf.phases.to(torch.float64)
        split = (leaf.phases != 0).nonzero()[:, 0]
        constraints = -(inputs * signs)[:, split].T
        margins = outputs @ leaf.rows.T
        margins[0] -= leaf.thresholds
        return self._least(constraints, margins.T, centre, radius, free)

    def _affine(self, x: Tensor, leaf: Leaf) -> tuple[Tensor, Tensor]:
        """Inputs of unstable neurons and outputs: row 0 at the first point, then differences."""
        network = self._network
        starts = {node.name: node for node in self._space.nodes}
        values = {network.graph.input.name: x}
        for node in network.graph.nodes[1:]:
            before = [values[name] for name in node.inputs]
            if node.name in starts:
                flat = before[0].flatten(1)
                values[node.name] = (flat * self._active(node.name, leaf)).reshape(before[0].shape)
            else:
                values[node.name] = network.linear[node.name].forward(*before)
        inputs = self._space.columns_of(values)
        outputs = values[network.graph.output].flatten(1)
        for found in (inputs, outputs):
            found[1:] -= found[:1].clone()
        return inputs, outputs

    def _active(self, name: str, leaf: Leaf) -> Tensor:
        node = next(node for node in self._space.nodes if node.name == name)
        active = (self._intervals[node.before].lower >= 0).flatten()
        active[node.neurons] = leaf.lower[node.start : node.stop] >= 0
        return active.to(torch.float64)

    def _least(
        self, constraints: Tensor, margins: Tensor, centre: Tensor, radius: Tensor, free: Tensor
    ) -> Answer:
        """The least t with margins <= t where constraints <= 0; column 0 is constant."""
        # Takes longer to import than most instances take; few searches come to a leaf.
        from scipy.optimize import linprog

        signs, wanted = _scaled(constraints), _scaled(margins)
        count = signs.shape[1] - 1
        upper = np.concatenate((signs[:, 1:], wanted[:, 1:]))
        last = np.concatenate((np.zeros(len(signs)), -np.ones(len(wanted))))[:, None]
        limits = np.concatenate((TOLERANCE - signs[:, 0], -wanted[:, 0]))
        goal = np.concatenate((np.zeros(count), [1.0]))
        sides = [(-1.0, 1.0)] * count + [(None, None)]
        found = linprog(goal, np.concatenate((upper, last), 1), limits, bounds=sides)
        if found.status == INFEASIBLE:
            return Answer(True)
        if found.status != OPTIMAL:
            return Answer(False)
        if found.fun > TOLERANCE:
            return Answer(True)
        point = centre.clone().flatten()
        moves = torch.from_numpy(found.x[:-1]).to(point.device)
        point[free] += moves * radius.flatten()[free]
        return Answer(False, point.reshape(centre.shape))


def _scaled(rows: Tensor) -> NDArray[np.float64]:
    """Rows of linear functions over [-1, 1], each divided by its greatest possible size."""
    size = rows.abs().sum(1, keepdim=True).clamp(min=1e-300)
    scaled: NDArray[np.float64] = (rows / size).cpu().numpy()
    return scaled
