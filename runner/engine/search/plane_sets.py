"""Planes for the disjuncts of a ReLU split: a set for each, made for its bound of the whole box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.beta import SplitBounds
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.neuron_forms import NeuronForms
from runner.engine.bounds.plane_fit import Game, fitted
from runner.engine.bounds.planes import Forms, NodePlanes, proved
from runner.engine.bounds.split_relu import SplitNode
from runner.engine.search.branching import Inspected
from runner.engine.search.search import SearchContext

# What all sets may take, in bytes; of a core.
PLANE_BYTES = 64 * 1024 * 1024
# Planes of a set, where there are so many neurons; where there is no room for as many, disjuncts
# that miss by less share the set of the weakest.
LEAST_PLANES = 64


class PlaneSets:
    """Of one search. The planes themselves are kept, and used, by its bounds."""

    def __init__(self, context: SearchContext, bounds: SplitBounds) -> None:
        self._context, self._bounds = context, bounds
        self._set: Tensor | None = None

    @property
    def possible(self) -> bool:
        """Whether they may still be made."""
        left_out = EnginePart.PLANES in self._context.settings.without
        return self._set is None and not left_out and bool(self._bounds.space.size)

    def of(self, disjuncts: Tensor) -> Tensor | None:
        """Which set each [B] is to use; None where there is none."""
        if self._set is None or not self._bounds.planes:
            return None
        return self._set[disjuncts]

    def drop(self) -> None:
        """For good."""
        self._bounds.planes = {}

    def make(self, roots: Inspected, disjuncts: Tensor) -> None:
        """From the whole box with the multipliers of some disjuncts [B]."""
        context, bounds = self._context, self._bounds
        margins = (roots.seen.bounds - roots.thresholds).amax(0)
        inputs = bounds.intervals[context.network.graph.input.name].lower.numel()
        room = context.settings.budget.scaled(PLANE_BYTES) // (bounds.scale.element_size() * inputs)
        count = max(1, min(len(disjuncts), room // LEAST_PLANES))
        weakest = margins.argsort()[:count]
        self._set = disjuncts.new_zeros(context.case.specs.disjuncts)
        self._set[disjuncts[weakest]] = torch.arange(count, device=disjuncts.device)
        costs = roots.scores()[weakest].clamp(min=0)
        shares = (costs / costs.sum(1, keepdim=True)).nan_to_num(0.0).sum(0)
        wanted = torch.zeros_like(shares, dtype=torch.bool)
        wanted[shares.topk(min(room // count, len(shares))).indices] = True
        wanted &= shares > 0
        maker = _Maker.of(context, bounds, roots, weakest)
        bounds.planes = {
            node.name: maker.planes(node, some)
            for node in bounds.space.nodes
            if bool((some := wanted[node.start : node.stop]).any())
        }


@dataclass(frozen=True)
class _Maker:
    """For S bounds of the whole box: outputs [S, N] <= 0, their coefficients of the ReLUs' outputs,
    and inputs [S, inputs], those of the input; before [S, N]: limits of the ReLUs' inputs.
    """

    context: SearchContext
    outputs: Tensor
    inputs: Tensor
    before: Interval
    box: Interval
    forms: NeuronForms

    @staticmethod
    def of(context: SearchContext, bounds: SplitBounds, roots: Inspected, some: Tensor) -> _Maker:
        """Of some roots [S], for the row that is nearest to its threshold."""
        network, intervals = context.network, bounds.intervals
        nearest = (roots.seen.bounds - roots.thresholds).argmax(0)[some]
        before, name = roots.domains.before, network.graph.input.name
        inputs = roots.seen.inputs[nearest, some].unsqueeze(1)
        return _Maker(
            context,
            bounds.whole(roots.seen.neurons[nearest, some]).clamp(max=0),
            network.features.whole(name, inputs).flatten(1),
            Interval(before.lower[some], before.upper[some]),
            intervals[name],
            NeuronForms(network, intervals, context.tag, context.checkpoint),
        )

    def planes(self, node: SplitNode, wanted: Tensor) -> NodePlanes:
        """Of those of a node's neurons that are wanted [U]."""
        columns = node.start + wanted.nonzero()[:, 0]
        rows, constants = (part[1][wanted] for part in self.forms.of(node))
        with torch.no_grad(), self.context.tag.kind(Memory.BOUNDS):
            forms, outputs = Forms(self.box, rows, constants), self.outputs[:, columns]
            lower, upper = self.before.lower[:, columns], self.before.upper[:, columns]
            # What triangles make of the input is about what forms make of it.
            triangles = outputs * (upper / (upper - lower)).nan_to_num(0.0).clamp(0, 1)
            games = zip(outputs, self.inputs + triangles @ rows, strict=True)
            slopes = torch.stack([fitted(forms, Game(*game)) for game in games])
            own, at = _places(columns - node.start, node.own)
            mine = Forms(self.box, rows[own], constants[own])
            terms = len(columns) + self.context.network.features.ranks
            return proved(mine, at, slopes[:, own], terms)


def _places(wanted: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Of those that are wanted the own ones, and where they are among these."""
    return torch.isin(wanted, own).nonzero()[:, 0], torch.isin(own, wanted).nonzero()[:, 0]
