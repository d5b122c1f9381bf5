"""Sub-domains of a ReLU split whose neurons are bounded again, by all that is known of them.

It takes as long as many splits, and gains as much as a few levels of them: it is for sub-domains
that need more splits than that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.beta import BetaSettings, SplitBounds
from runner.engine.bounds.confined import ConfinedBounds, Questions
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.split_relu import SplitNode
from runner.engine.bounds.tiles import cached_rows
from runner.engine.search.branching import Inspected
from runner.engine.search.domains import Domains
from runner.engine.search.search import SearchContext
from runner.engine.search.split_root import SplitRoot
from runner.engine.specs import exact_in

# Neurons of a sub-domain that are bounded again: those that its bound depends on most.
MOST_NEURONS = 32
# Of what all neurons of a sub-domain promise, what one must to be asked for.
LEAST_PROMISE = 0.005
# Of what was gone at a node, what the last time counts for.
LAST = 0.3
# Splits of a sub-domain from one time to the next, and how many more in a row it must need for it
# to be worth it, if each gains as much as these did.
LEVELS, NEEDED = 4, 6
# Of what sub-domains miss, what it must have taken on average to go on; at first, and otherwise in
# one of so many batches where any is due, it is tried on a few. Of that average, what the last time
# counts for.
GAIN, EVERY, TRIED, LAST_GAIN = 0.18, 16, 4, 0.3
# Of a neuron that was asked for before, in any sub-domain, what it ended with is a good beginning.
FIRST = BetaSettings(iterations=12)
AGAIN = BetaSettings(iterations=3)
# Of the sub-domain itself, with its new limits.
OWN = BetaSettings(iterations=8)
# What multipliers that are kept may take, in bytes; of a core.
KEPT_BYTES = 64 * 1024 * 1024
# Of a neuron's width: how far beyond zero a bound is to be, so that its proof is, too.
CLEARLY = 1e-3


class Confining:
    """Of one search."""

    def __init__(self, context: SearchContext, root: SplitRoot) -> None:
        self._context = context
        self._root = root
        # By node, of what relaxations cost, what was gone lately.
        self._gone: dict[str, float] = {}
        self._gain: float | None = None
        self._waited = 0

    @cached_property
    def possible(self) -> bool:
        """Whether there is something to bound, and bounds of the search's precision prove it."""
        root, network = self._root, self._context.network
        exact = exact_in(root.dtype, root.rows.rows)
        left_out = EnginePart.CONFINED in self._context.settings.without
        later = any(node.before not in network.exact for node in root.bounds.space.nodes)
        return exact and not left_out and isinstance(root.bounds, SplitBounds) and later

    def due(self, domains: Domains) -> Tensor:
        """Which [n] of them need more splits, as far as the last ones tell; to be asked once for
        each batch.
        """
        if not self.possible:
            return domains.depth.new_zeros(0)
        levels = domains.depth - domains.anew
        gained = (domains.margins - domains.stood).clamp(min=0) / levels.clamp(min=1)
        needed = -domains.margins > NEEDED * gained
        found = ((levels >= LEVELS) & needed).nonzero()[:, 0]
        if self._gain is not None and self._gain >= GAIN:
            return found
        self._waited += bool(len(found))
        tries = self._gain is None or self._waited % EVERY == 0
        return found[: TRIED if tries else 0]

    def gained(self, before: Tensor, after: Tensor) -> None:
        """What sub-domains missed [n], and miss now; nothing where it is not positive."""
        missed = before > 0
        if bool(missed.any()):
            gains = 1 - after[missed].clamp(min=0) / before[missed]
            mean = float(gains.nan_to_num(0.0).clamp(0, 1).mean())
            last = mean if self._gain is None else self._gain
            self._gain = last + LAST_GAIN * (mean - last)

    def confined(self, domains: Domains, due: Tensor, inspected: Inspected) -> Domains:
        """With limits, of those that are due, that hold where the disjuncts may be unsafe. Limits
        that cross say that a sub-domain is safe.
        """
        some, scores = domains.select(due), inspected.scores()[due].clamp(min=0)
        limits = Interval(some.lower.clone(), some.upper.clone())
        wanted = self._wanted(scores)
        units = 1 / self._spans(inspected, due)
        context = self._context
        block = max(1, cached_rows(context.network.graph, context.settings.budget) // 2)
        for node in self._bounds.space.nodes:
            pairs = wanted[:, node.start : node.stop].nonzero()
            for index, columns in (part.T for part in pairs.split(block)):
                asked = _Asked(node, index, columns, units[index])
                lower, upper = self._bounded(some, limits, asked)
                at = index, node.start + columns
                # fmax, fmin: what is no number says nothing.
                limits.lower[at] = torch.fmax(limits.lower[at], lower)
                limits.upper[at] = torch.fmin(limits.upper[at], upper)
            self._learn(node, some.before, limits, scores * wanted)
        return self._with_own(domains, due, limits)

    def _wanted(self, scores: Tensor) -> Tensor:
        """Which neurons [n, N] of sub-domains promise most, by what they cost the bounds and how
        much of that was gone at their nodes so far.
        """
        promise = scores.clone()
        for node in self._bounds.space.nodes:
            promise[:, node.start : node.stop] *= self._gone.get(node.name, 1.0)
            if node.before in self._context.network.exact:
                promise[:, node.start : node.stop] = 0
        chosen = promise.topk(min(MOST_NEURONS, promise.shape[1]), 1).indices
        wanted = torch.zeros_like(promise, dtype=torch.bool).scatter_(1, chosen, True)
        return wanted & (promise > LEAST_PROMISE * promise.sum(1, keepdim=True))

    def _learn(self, node: SplitNode, before: Interval, after: Interval, costs: Tensor) -> None:
        """What of the costs [n, N] of neurons that were asked for is gone."""
        columns = slice(node.start, node.stop)
        cost = float(costs[:, columns].sum())
        if cost > 0:
            left = (_areas(after) / _areas(before)).nan_to_num(0.0, 0.0, 0.0) * costs
            gone = 1 - float(left[:, columns].sum()) / cost
            self._gone[node.name] = self._gone.get(node.name, gone) * (1 - LAST) + LAST * gone

    def _with_own(self, domains: Domains, due: Tensor, limits: Interval) -> Domains:
        """With limits of those that are due, and multipliers that go with them."""
        root = self._root
        found = replace(
            domains,
            lower=domains.lower.index_copy(0, due, limits.lower),
            upper=domains.upper.index_copy(0, due, limits.upper),
            ceiling=domains.ceiling.index_fill(0, due, 0.0),
            anew=domains.anew.index_copy(0, due, domains.depth[due]),
        )
        some = found.select(due)
        goal = root.rows.goal(some.disjunct, root.dtype)
        _, multipliers = root.bounds.optimized(root.subdomains(some), goal, OWN)
        own = some.with_multipliers(multipliers).multipliers
        with self._context.tag.kind(Memory.ALPHA):
            return replace(found, multipliers=found.multipliers.index_copy(0, due, own))

    @cached_property
    def _bounds(self) -> ConfinedBounds:
        bounds, context = self._root.bounds, self._context
        if not isinstance(bounds, SplitBounds):
            raise TypeError("where more than ReLUs is split, nothing is confined")
        return ConfinedBounds(
            context.network,
            bounds.space,
            bounds.intervals,
            bounds.scale,
            context.tag,
            context.checkpoint,
        )

    @cached_property
    def _kept(self) -> _Kept:
        space = self._bounds.space
        width = sum(space.slots) + self._root.rows.count
        room = self._context.settings.budget.scaled(KEPT_BYTES) // (2 * width)
        with self._context.tag.kind(Memory.ALPHA):
            return _Kept(self._root.before.lower, space.size, width, room)

    def _bounded(self, some: Domains, limits: Interval, asked: _Asked) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds [n] of what is asked."""
        rows, twice = self._root.rows, asked.index.repeat(2)
        known = Interval(limits.lower[twice], limits.upper[twice])
        count, at = len(asked.index), asked.node.start + asked.columns
        widths = limits.upper[asked.index, at] - limits.lower[asked.index, at]
        units = (widths * asked.units).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
        negative = torch.arange(2 * count, device=twice.device) >= count
        questions = self._bounds.asked(
            Questions(
                rows=rows.of_domains(some.disjunct[twice], self._root.dtype),
                phases=some.phases[twice],
                before=known,
                multipliers=known.lower.new_zeros((1, 2 * count, 0)),
                node=asked.node,
                columns=asked.columns.repeat(2),
                signs=torch.where(negative, -1, 1),
                limits=rows.thresholds[:, some.disjunct[twice]],
                units=units.repeat(2),
            )
        )
        where = negative.long(), at.repeat(2)
        # β is of a sub-domain's own splits; α, and weights, serve others.
        lasting = self._bounds.lasting(questions)
        first, all_known = self._kept.of(where, lasting, questions.multipliers[0])
        questions = replace(questions, multipliers=first[None])
        goal = (CLEARLY * widths).repeat(2)[None]
        settings = AGAIN if all_known else FIRST
        _, found = self._bounds.optimized(questions, goal, settings)
        self._kept.keep(where, lasting, found[0])
        proved = self._bounds.bound(replace(questions, multipliers=found), proven=True)[0]
        return proved[:count], -proved[count:]

    def _spans(self, inspected: Inspected, due: Tensor) -> Tensor:
        """What the row nearest to its threshold spans over the box, by its bound: [n]."""
        seen, features = inspected.seen, self._context.network.features
        nearest = (seen.bounds - inspected.thresholds).argmax(0)[due]
        name = self._context.network.graph.input.name
        slopes = features.whole(name, seen.inputs[nearest, due].unsqueeze(1)).flatten(1)
        box = self._root.bounds.intervals[name]
        return slopes.abs() @ (box.upper - box.lower).flatten()


def _areas(limits: Interval) -> Tensor:
    """What triangles over limits cost, of each neuron; 0 where it is stable."""
    lower, upper = limits.lower.clamp(max=0), limits.upper.clamp(min=0)
    return (-lower * upper / (upper - lower)).nan_to_num(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Asked:
    """Neurons of one node: of which sub-domain each is [n], which column of the node's [n], and
    what a weight of a row is counted in, of the neuron's width [n].
    """

    node: SplitNode
    index: Tensor
    columns: Tensor
    units: Tensor


class _Kept:
    """What questions ended with, by side and neuron, as far as there is room. `like`: a tensor of
    the search's kind.
    """

    def __init__(self, like: Tensor, neurons: int, width: int, room: int) -> None:
        self._rows = like.new_zeros((0, width), dtype=torch.float16)
        self._place = torch.full((2, neurons), -1, dtype=torch.long, device=like.device)
        self._room = room

    def of(
        self, where: tuple[Tensor, Tensor], lasting: Tensor, otherwise: Tensor
    ) -> tuple[Tensor, bool]:
        """Multipliers [n, width] to begin with, those that are `lasting` if they are known; and
        whether they all are.
        """
        place = self._place[where]
        known = place >= 0
        if not len(self._rows):
            return otherwise, False
        kept = self._rows[place.clamp(min=0)].to(otherwise)
        return torch.where(lasting & known[:, None], kept, otherwise), bool(known.all())

    def keep(self, where: tuple[Tensor, Tensor], lasting: Tensor, found: Tensor) -> None:
        """Of a neuron that several sub-domains ask for, the last one counts."""
        place = self._place.view(-1)
        keys = where[0] * self._place.shape[1] + where[1]
        last = torch.full_like(place, -1)
        last.scatter_reduce_(0, keys, torch.arange(len(keys), device=keys.device), "amax")
        chosen = last[last >= 0]
        keys = keys[chosen]
        new = keys[place[keys] < 0][: max(0, self._room - len(self._rows))]
        if len(new):
            place[new] = len(self._rows) + torch.arange(len(new), device=new.device)
            self._rows = torch.cat([self._rows, self._rows.new_zeros((len(new), found.shape[1]))])
        stored = place[keys] >= 0
        at, chosen = place[keys[stored]], chosen[stored]
        values = found[chosen].to(self._rows.dtype)
        self._rows[at] = torch.where(lasting[chosen], values, self._rows[at])
