"""Planes for the disjuncts of a ReLU split: a set for each, first made for its bound of the whole
box, and fitted again for the domains that are open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.beta import SplitBounds
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.neuron_forms import NeuronForms
from runner.engine.bounds.plane_bands import order_of
from runner.engine.bounds.plane_fit import Game, fitted
from runner.engine.bounds.planes import NodePlanes, UpperForms, proved
from runner.engine.search.branching import Inspected
from runner.engine.search.search import SearchContext

# What all sets may take, in bytes; of a core.
PLANE_BYTES = 64 * 1024 * 1024
# Planes of a set, where there are so many neurons; where there is no room for as many, disjuncts
# that miss by less share the set of the weakest.
LEAST_PLANES = 64
# Of what the bounds of all disjuncts miss together, what planes must take away to be kept, and what
# is much.
GAIN, MUCH = 0.03, 0.25
# Domains after which planes are fitted again, and by what they grow from one time to the next.
AGAIN, GROWTH = 200, 1.5
# What that must take off what a batch of them misses together, and by what they grow elsewhere.
WORTH, IDLE_GROWTH = 0.02, 6.0


@dataclass(frozen=True)
class _Node:
    """Forms of P neurons that have planes; which domains' columns [P] they have; of the rank's own
    ones, which they are among these, and among the node's own (`at`).
    """

    forms: UpperForms
    columns: Tensor
    own: Tensor
    at: Tensor


class PlaneSets:
    """Of one search. The planes themselves are kept, and used, by its bounds. `before` [1, N]: the
    limits of the whole box.
    """

    def __init__(self, context: SearchContext, bounds: SplitBounds, before: Interval) -> None:
        self._context, self._bounds = context, bounds
        self._slopes = (before.upper / (before.upper - before.lower))[0]
        self._nodes: dict[str, _Node] = {}
        self._set: Tensor | None = None
        self._last, self._next = 0, AGAIN
        self._former: Mapping[str, NodePlanes] = {}
        # Whether more iterations are worth their time, as there is much that shares may gain.
        self.are_much = False

    @property
    def possible(self) -> bool:
        """Whether they may still be made."""
        left_out = EnginePart.PLANES in self._context.settings.without
        return self._set is None and not left_out and bool(self._bounds.space.size)

    @property
    def used(self) -> bool:
        return bool(self._nodes)

    def judge(self, before: Tensor, after: Tensor) -> bool:
        """Whether they stay, by what the whole box's bounds miss [B] without and with them: of the
        sum, as the disjuncts that miss most are what a search is about.
        """
        gain = _gain(before, after)
        self.are_much = gain >= MUCH
        if gain < GAIN:
            self._bounds.planes, self._nodes = {}, {}
        return self.used

    def of(self, disjuncts: Tensor) -> Tensor | None:
        """Which set each [B] is to use; None where there is none."""
        return self._set[disjuncts] if self._set is not None and self.used else None

    def due(self, visited: int) -> bool:
        """Whether to fit them again, after so many domains; to be asked once for each batch."""
        if not self.used or visited < self._next:
            return False
        self._last, self._next = visited, int(visited * GROWTH)
        return True

    def keep(self, before: Tensor, after: Tensor) -> bool:
        """Whether planes that were fitted again stay, by what a batch of domains misses [B] with
        those before and with them. Where they are much they do: multipliers follow them.
        """
        gain, former = _gain(before, after), self._former
        self._former = {}
        if self.are_much or gain >= WORTH:
            return True
        self._next = int(self._last * IDLE_GROWTH)
        if gain < 0:
            self._bounds.planes = former
        return gain >= 0

    def make(self, roots: Inspected, disjuncts: Tensor) -> None:
        """From the whole box, for some disjuncts [B]."""
        graph = self._context.network.graph
        margins = (roots.seen.bounds - roots.thresholds).amax(0)
        inputs = self._bounds.intervals[graph.input.name].lower.numel()
        each = self._bounds.scale.element_size() * inputs
        room = self._context.settings.budget.scaled(PLANE_BYTES) // each
        count = max(1, min(len(disjuncts), room // LEAST_PLANES))
        weakest = margins.argsort()[:count]
        self._set = disjuncts.new_zeros(self._context.case.specs.disjuncts)
        self._set[disjuncts[weakest]] = torch.arange(count, device=disjuncts.device)
        costs = roots.scores()[weakest].clamp(min=0)
        shares = (costs / costs.sum(1, keepdim=True)).nan_to_num(0.0).sum(0)
        wanted = torch.zeros_like(shares, dtype=torch.bool)
        wanted[shares.topk(min(room // count, len(shares))).indices] = True
        self._form(wanted & (shares > 0))
        self._fit(_Means.of(roots, torch.arange(count, device=disjuncts.device), weakest))

    def fit(self, inspected: Inspected, disjuncts: Tensor) -> None:
        """Again, from what domains of these disjuncts [B] are on average; other sets stay."""
        sets = self.of(disjuncts)
        if sets is not None:
            self._former = self._bounds.planes
            some = torch.arange(len(sets), device=sets.device)
            self._fit(_Means.of(inspected, sets, some, shared=True))

    def _form(self, wanted: Tensor) -> None:
        """Of the neurons [N] that are to have planes."""
        context, bounds = self._context, self._bounds
        box = bounds.intervals[context.network.graph.input.name]
        made = NeuronForms(context.network, bounds.intervals, context.tag, context.checkpoint)
        for node in bounds.space.nodes:
            some = wanted[node.start : node.stop].nonzero()[:, 0]
            if len(some):
                rows, constants = made.of(node.before, node.neurons[some])
                forms = UpperForms(box, rows[1], constants[1])
                own = torch.isin(some, node.own).nonzero()[:, 0]
                at = torch.isin(node.own, some).nonzero()[:, 0]
                order = order_of(rows[1][own], box.lower.shape[1:])
                self._nodes[node.name] = _Node(forms, node.start + some, own[order], at[order])

    def _fit(self, means: _Means) -> None:
        """The sets that there are means of: at first all."""
        with torch.no_grad(), self._context.tag.kind(Memory.BOUNDS):
            network = self._context.network
            inputs = network.features.whole(network.graph.input.name, means.inputs).flatten(1)
            self._bounds.planes = {
                name: self._fitted(name, node, means, inputs) for name, node in self._nodes.items()
            }

    def _fitted(self, name: str, node: _Node, means: _Means, inputs: Tensor) -> NodePlanes:
        """`inputs` [G, inputs]: coefficients of the input, triangles and planes among them."""
        self._context.checkpoint()
        before = self._bounds.planes.get(name)
        features, rows = self._context.network.features, node.forms.rows
        outputs, shares = means.outputs[:, node.columns], means.shares[:, node.columns]
        # What triangles make of the input is about what forms make of it.
        rest = inputs + (outputs * (1 - shares) * self._slopes[node.columns]) @ rows
        if before is None:
            slopes = rows.new_zeros((len(means.sets), len(node.own), rows.shape[1]))
        else:
            slopes = before.banded.dense().clone()
            given = (outputs * shares)[:, node.own]
            sets = zip(given, means.sets.tolist(), strict=True)
            of = [before.banded.times(part, number) for part, number in sets]
            rest = rest - features.total(features.counted(name, torch.stack(of)))
        for number, game in zip(means.sets, zip(outputs, rest, strict=True), strict=True):
            slopes[number] = fitted(node.forms, Game(*game))[node.own]
        own = UpperForms(node.forms.box, rows[node.own], node.forms.constants[node.own])
        return proved(own, node.at, slopes, len(rows) + features.ranks)


@dataclass(frozen=True)
class _Means:
    """Of domains of G sets: sets [G]; outputs [G, N] <= 0, coefficients of relaxed ReLUs' outputs;
    shares [G, N], what of these is given to planes; inputs [G, 1, *own input].
    """

    sets: Tensor
    outputs: Tensor
    shares: Tensor
    inputs: Tensor

    @staticmethod
    def of(inspected: Inspected, sets: Tensor, some: Tensor, *, shared: bool = False) -> _Means:
        """Of some [n] of the domains, of these sets [n], for the row nearest to its threshold;
        `shared`: whether there were planes already.
        """
        bounds, seen, before = inspected.bounds, inspected.seen, inspected.domains.before
        nearest = (seen.bounds - inspected.thresholds).argmax(0)[some]
        crossing = (before.lower[some] < 0) & (before.upper[some] > 0)
        outputs = bounds.whole(seen.neurons[nearest, some]).clamp(max=0) * crossing
        shares = bounds.whole(inspected.domains.multipliers[nearest, some]).clamp(0, 1)
        shares = shares if shared else torch.zeros_like(shares)
        found, group = sets.unique(return_inverse=True)
        given = _means(outputs * shares, group, len(found))
        outputs = _means(outputs, group, len(found))
        shares = (given / outputs).nan_to_num(0.0)
        inputs = _means(seen.inputs[nearest, some], group, len(found))
        return _Means(found, outputs, shares, inputs.unsqueeze(1))


def _gain(before: Tensor, after: Tensor) -> float:
    """Of what bounds miss together [B], where they miss anything, the share that is gone."""
    missed = float(before.clamp(min=0).sum())
    return 1 - float(after.clamp(min=0).sum()) / missed if missed > 0 else 0.0


def _means(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Of values [n, ...] of each of so many groups."""
    of_group = torch.nn.functional.one_hot(group, groups).to(values.dtype).T
    sums = of_group @ values.flatten(1) / of_group.sum(1, keepdim=True)
    return sums.reshape(groups, *values.shape[1:])
