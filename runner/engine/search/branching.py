"""Which neuron each sub-domain is split on, and the two children.

A score is what the relaxation of a neuron takes from the bound (BaBSR's, Bunel et al. 2020). Where
bounds of intermediate neurons stay as they are, a ReLU is split for what its two children promise
to gain, and where a network bends otherwise a neuron for its score. Where they are computed anew,
early layers go first: all later ones gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.engine.bounds.bent import BentBounds
from runner.engine.bounds.bent_space import BentSpace
from runner.engine.bounds.beta import SplitBounds
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.space import Splittable
from runner.engine.bounds.subdomains import Inspection, Subdomains

NOTHING = -1.0


@dataclass(frozen=True)
class Inspected:
    """Sub-domains with what one pass showed of them, and thresholds [K, B]."""

    bounds: SplitBounds | BentBounds
    domains: Subdomains
    seen: Inspection
    thresholds: Tensor

    def scores(self) -> Tensor:
        """[B, N], of the row nearest to its threshold; NOTHING where a neuron is stable."""
        nearest = (self.seen.bounds - self.thresholds).argmax(0)
        batch = torch.arange(len(self.domains), device=nearest.device)
        negative = (-self.seen.neurons[nearest, batch]).clamp(min=0)
        lower, upper = self.domains.before.lower, self.domains.before.upper
        crossing = (lower < 0) & (upper > 0)
        triangle = torch.where(crossing, -lower * upper / (upper - lower), 0.0)
        return torch.where(crossing, self.bounds.whole(negative) * triangle, NOTHING)

    def gains(self) -> Tensor:
        """[B, N], what a split promises: what its children gain where everything else stays as it
        is, neither more than is missed; NOTHING where a neuron is stable.

        Of a coefficient c < 0 and a neuron with the input z and the output y where the bound is
        attained, the active child gains c (z - y) and the inactive one -c y. Our own rule.
        """
        bounds, seen = self.bounds, self.seen
        if not isinstance(bounds, SplitBounds):
            raise TypeError("only where ReLUs are split, the sides of a split are known")
        batch = torch.arange(len(self.domains), device=seen.bounds.device)
        nearest = (self.thresholds - seen.bounds).argmin(0)
        most = self.missed[:, None]
        before, after = (of[nearest, batch] for of in bounds.attained(self.domains))
        cost = (-seen.neurons[nearest, batch]).clamp(min=0)
        lower, upper = self.domains.before.lower, self.domains.before.upper
        crossing = (lower < 0) & (upper > 0)
        found = bounds.whole(_both(cost * (after - before), cost * after, most))
        return torch.where(crossing, found, NOTHING)

    @property
    def missed(self) -> Tensor:
        """[B], by how much the bound of the row nearest to its threshold is below it; inf where it
        is not, as in a workload that goes on whatever is proved.
        """
        missed = (self.thresholds - self.seen.bounds).amin(0)
        return torch.where(missed > 0, missed, torch.inf)

    def child(self, columns: Tensor, sign: int) -> Subdomains:
        """With the neurons of `columns` [B] active (1) or inactive (-1).

        β starts where it makes up for a lower line of the parent that is lost.
        """
        domains, seen = self.domains, self.seen
        chosen = self.bounds.space.columns == columns[:, None]
        slopes = domains.multipliers
        lost = 1 - slopes if sign > 0 else slopes
        beta = seen.neurons.clamp(min=0) * lost / self.bounds.scale
        at = columns[:, None]
        before = domains.before
        if sign > 0:
            before = Interval(before.lower.scatter(1, at, 0.0), before.upper)
        else:
            before = Interval(before.lower, before.upper.scatter(1, at, 0.0))
        phases = domains.phases.scatter(1, at, sign)
        multipliers = torch.where(chosen, beta, slopes)
        return replace(domains, phases=phases, before=before, multipliers=multipliers)


@dataclass(frozen=True)
class BentInspected(Inspected):
    """Where neurons are cut at places of their own, and may be cut again."""

    variables: BentSpace

    def scores(self) -> Tensor:
        nearest = (self.seen.bounds - self.thresholds).argmax(0)
        batch = torch.arange(len(self.domains), device=nearest.device)
        return torch.where(
            self.variables.splittable(self.domains.before),
            self.seen.neurons[nearest, batch],
            NOTHING,
        )

    def gains(self) -> Tensor:
        """The scores: what a neuron's sides would gain is not known before they are bounded."""
        return self.scores()

    def child(self, columns: Tensor, sign: int) -> Subdomains:
        """Above (1) or below (-1) the place where the neurons of `columns` [B] are cut."""
        domains, at = self.domains, columns[:, None]
        before = domains.before
        cuts = self.variables.cuts(before).gather(1, at)
        if sign > 0:
            before = Interval(before.lower.scatter(1, at, cuts), before.upper)
        else:
            before = Interval(before.lower, before.upper.scatter(1, at, cuts))
        phases = domains.phases.scatter(1, at, sign)
        return replace(domains, phases=phases, before=before)


def inspected(
    bounds: SplitBounds | BentBounds, domains: Subdomains, seen: Inspection, thresholds: Tensor
) -> Inspected:
    if isinstance(bounds, BentBounds):
        return BentInspected(bounds, domains, seen, thresholds, bounds.space)
    return Inspected(bounds, domains, seen, thresholds)


def most_promising(inspected: Inspected, *, promises: bool = True) -> tuple[Tensor, Tensor]:
    """The column [B] of the neuron that promises most, and whether there is any [B]. Without
    `promises`, of the one with the best score.
    """
    scores = inspected.gains() if promises else inspected.scores()
    if not scores.shape[1]:
        nothing = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        return nothing, nothing.bool()
    values, columns = scores.max(1)
    return columns, values > NOTHING


def _both(one: Tensor, other: Tensor, most: Tensor) -> Tensor:
    """What gains of two children are worth: their sum, neither more than `most`. What is no number
    is worth nothing.
    """
    first, second = (
        torch.minimum(gain.nan_to_num(0.0).clamp(min=0), most) for gain in (one, other)
    )
    return first + second


def early(inspected: Inspected, family: Tensor, families: int) -> tuple[Tensor, Tensor]:
    """The best neuron of the earliest layer that has one, and whether there is any; one choice
    for each family [B] of sub-domains, whose scores are added up.
    """
    scores = inspected.scores()
    most = scores.amax(1, keepdim=True).clamp(min=1e-30)
    total = scores.new_zeros((families, scores.shape[1]))
    total.index_add_(0, family, scores.clamp(min=0) / most)
    share = total / total.amax(1, keepdim=True).clamp(min=1e-30)
    nodes: Sequence[Splittable] = inspected.bounds.space.nodes
    for number, node in enumerate(nodes):
        columns = slice(node.start, node.stop)
        early_ones = share[:, columns]
        share[:, columns] = torch.where(early_ones > 0, early_ones + len(nodes) - number, 0.0)
    splittable = scores > NOTHING
    keys = torch.where(splittable, share[family], NOTHING)
    return keys.argmax(1), splittable.any(1)
