"""Rows of the last start node, those that specs depend on most first, and no more than it takes.

Behind the last ReLUs all is linear, so how much each of them can cost a spec is known: its
coefficient times the greatest gap between its line and itself. A few neurons make up most of that.
Once the specs hold, or would not hold if half of what is left cost nothing, no more are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.backward import advance, frontier_at
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.refinement import Refinement
from runner.engine.network.graph import Op
from runner.engine.specs import Specs

# Neurons go in parts that make up so much of what all cost together.
PARTS = (0.6, 0.9, 1.0)
# Of what is left, what rows take away at most: 0.15 to 0.35 on cifar_biasfield.
HOPE = 0.5


@dataclass(frozen=True)
class LastRows:
    """`name`: the last start node; `relu`: the node that takes it."""

    network: BoundNetwork
    name: str
    relu: str

    @staticmethod
    def of(network: BoundNetwork, starts: frozenset[str]) -> LastRows | None:
        """None where the last relaxed node is no ReLU of a start node that no other one takes."""
        nodes = network.ancestors(network.graph.output)
        relaxed = [node for node in nodes if node.name in network.relaxed]
        if not relaxed or relaxed[0].op is not Op.RELU:
            return None
        (name,) = relaxed[0].inputs
        others = any(name in node.inputs for node in network.graph.nodes if node != relaxed[0])
        fits = name in starts and name in network.only_unstable and not others
        return LastRows(network, name, relaxed[0].name) if fits else None

    def none(self, device: torch.device) -> Refinement:
        """All rows but those of the node."""
        size = self.network.graph.node(self.name).size
        return Refinement({self.name: torch.zeros(size, dtype=torch.bool, device=device)})

    def bound(self, driver: Propagator, bounds: NetworkBounds, specs: Specs) -> NetworkBounds:
        """Part by part; `bounds`: of all else, over one box; `specs`: those that are open in it."""
        if not len(specs.rows):
            return bounds
        costs = self._costs(bounds.intervals[self.name], self._coefficients(specs.rows))
        total, order = costs.amax(0).sort(descending=True, stable=True)
        share = total.cumsum(0) / total.sum().clamp(min=1e-30)
        # Nothing is proved with them.
        rows, done = specs.rows.to(bounds.dtype), 0
        for part in PARTS:
            left = costs[:, order[done:]].sum(1)
            margins = driver.spec_bounds(bounds, rows)[:, 0] - specs.thresholds
            if _told(specs, margins, left):
                break
            ends = int((share < part).sum()) + 1 if part < 1 else int((total > 0).sum())
            if ends > done:
                mask = torch.zeros(len(order), dtype=torch.bool, device=order.device)
                mask[order[done:ends]] = True
                wanted = driver.with_refinement(Refinement({self.name: mask}))
                bounds, done = wanted.again(self.name, bounds), ends
        return bounds

    def _coefficients(self, rows: Tensor) -> Tensor:
        """Of the ReLUs in rows of the outputs [S, outputs]: [S, n]."""
        network = self.network
        output = network.graph.node(network.graph.output)
        some = rows.to(network.dtype).reshape(len(rows), 1, *output.shape)
        start = frontier_at(network, output.name, network.features.local(output.name, some, 2))
        at = advance(network, start, {}, {}, stop_at_relaxed=True).pending[self.relu]
        return network.whole(self.relu, at, 2)[:, 0].flatten(1)

    def _costs(self, interval: Interval, coefficients: Tensor) -> Tensor:
        """What each neuron can cost each row at most [S, n]; 0 where it is stable."""
        lower, upper = interval.lower.flatten(1), interval.upper.flatten(1)
        unstable = (lower < 0) & (upper > 0)
        above = torch.where(unstable, -lower * upper / (upper - lower), 0.0)
        below = torch.where(unstable, torch.minimum(-lower, upper), 0.0)
        weight = coefficients.to(lower.dtype)
        cost = torch.where(weight < 0, -weight * above, weight * below)
        return cost.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _told(specs: Specs, margins: Tensor, left: Tensor) -> bool:
    """Whether all disjuncts are excluded, or one is not to be, as far as is to be hoped."""
    disjuncts = specs.disjunct.unique()
    now = specs.margins(margins + specs.thresholds)[disjuncts]
    at_best = specs.margins(margins + specs.thresholds + HOPE * left.to(margins))[disjuncts]
    return bool((now > 0).all()) or bool((at_best <= 0).any())
