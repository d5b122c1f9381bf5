"""Where a ReLU-split search begins: the root's bounds, what can be split, and the first domains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.bent import BentBounds
from runner.engine.bounds.bent_space import BentSpace
from runner.engine.bounds.beta import BetaSettings, SplitBounds
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.split import SplitSpace, bends_otherwise
from runner.engine.bounds.subdomains import Inspection, Subdomains
from runner.engine.bounds.tighten import Tightener
from runner.engine.search.branching import Inspected, inspected
from runner.engine.search.domains import Domains
from runner.engine.search.leaves import Leaves
from runner.engine.search.padded_rows import PaddedRows
from runner.engine.search.plane_sets import PlaneSets
from runner.engine.search.search import SearchContext

# What the tensors of one batch of sub-domains may take while they are bounded, in bytes; of a core.
BATCH_BYTES = 16 * 1024 * 1024
LEAST_BATCH, MOST_BATCH = 16, 512
# Neurons that are split to see what bounding the later ones anew gains, and of their width what it
# must be for it to be done in every domain.
TRIED, GAIN = 8, 0.02
# What is given to a plane at first, of what a neuron takes from a bound.
FIRST_SHARE = 0.5
# Copies that live at the same time: of the widest node's A, and of the multipliers.
LIVE_ROWS, LIVE_MULTIPLIERS = 8, 12


@dataclass(frozen=True)
class SplitRoot:
    """All that the search of one case shares."""

    bounds: SplitBounds | BentBounds
    rows: PaddedRows
    tightener: Tightener
    leaves: Leaves
    before: Interval
    budget: Budget
    planes: PlaneSets | None

    @staticmethod
    def of(context: SearchContext) -> SplitRoot:
        known = context.case.known
        if known is None:
            raise ValueError("a ReLU split starts from bounds of every node")
        network, tag, checkpoint = context.network, context.tag, context.checkpoint
        intervals = known.intervals
        space = (BentSpace if bends_otherwise(network) else SplitSpace).of(network, intervals)
        lower = {name: interval.lower for name, interval in intervals.items()}
        upper = {name: interval.upper for name, interval in intervals.items()}
        before = Interval(space.columns_of(lower), space.columns_of(upper))
        ones = before.lower.new_ones(sum(space.slots))
        bounds: SplitBounds | BentBounds
        if isinstance(space, BentSpace):
            bounds = BentBounds(network, space, intervals, ones, tag, checkpoint)
        else:
            bounds = SplitBounds(network, space, intervals, ones, tag, checkpoint)
        return SplitRoot(
            bounds,
            PaddedRows.of(context.case.specs),
            Tightener(network, context.settings, space, intervals, tag, checkpoint),
            Leaves(network, space, intervals, context.settings.without),
            before,
            context.settings.budget,
            PlaneSets(context, bounds, before) if isinstance(bounds, SplitBounds) else None,
        )

    @property
    def batch(self) -> int:
        """Sub-domains bounded at once: from a memory budget and the network, never from P."""
        widest = max(i.lower[0].numel() for i in self.bounds.intervals.values())
        each = LIVE_ROWS * widest + LIVE_MULTIPLIERS * self.bounds.space.size
        fits = self.budget.scaled(BATCH_BYTES) // (4 * each * self.rows.count)
        return min(max(LEAST_BATCH, fits - fits % 2), self.budget.scaled(MOST_BATCH))

    @property
    def bent(self) -> bool:
        """Whether there is more to split than ReLUs."""
        return isinstance(self.bounds, BentBounds)

    @property
    def dtype(self) -> torch.dtype:
        """What the search is computed in."""
        return self.before.lower.dtype

    def tightening_pays(self) -> bool:
        """Whether later layers' bounds gain where some neurons of the first one are split; the same
        on all ranks. Where a network bends otherwise, every split moves limits, and they do.
        """
        if self.bent:
            return True
        first, *later = [node for node in self.bounds.space.nodes if len(node.neurons)]
        lower, upper = self.before.lower.clone(), self.before.upper.clone()
        low, high = (end[0, first.start : first.stop] for end in (lower, upper))
        widest = (-low * high / (high - low)).topk(min(TRIED, len(low))).indices
        low[widest[::2]], high[widest[1::2]] = 0.0, 0.0
        cut = Interval(lower, upper)
        found = self.tightener.tightened(cut)
        widths = [
            sum(float((i.upper - i.lower)[0, n.start : n.stop].sum()) for n in later)
            for i in (found, cut)
        ]
        return bool(later) and widths[0] <= (1 - GAIN) * widths[1]

    def domains(self, disjuncts: Tensor, settings: BetaSettings) -> tuple[Domains, Tensor, Tensor]:
        """The whole box for each disjunct [B], bounds [K, B] and the multipliers [K, B, V] that
        they come from; sets the scale of β.
        """
        count = len(disjuncts)
        lower, upper = (
            end.expand(count, -1).clone() for end in (self.before.lower, self.before.upper)
        )
        phases = torch.zeros(lower.shape, dtype=torch.int8, device=lower.device)
        multipliers = self.bounds.initial(Interval(lower, upper), self.rows.count)
        nothing = torch.full((count,), -torch.inf, dtype=torch.float64, device=lower.device)
        depth = torch.zeros(count, dtype=torch.long, device=lower.device)
        domains = Domains(
            disjuncts,
            phases,
            lower,
            upper,
            multipliers.transpose(0, 1),
            margins=nothing,
            depth=depth,
            urgency=nothing,
            ceiling=-nothing,
            anew=depth,
            stood=nothing,
        )
        return self._scaled(*self._bounded(domains, settings))

    def with_planes(self, whole: Domains, settings: BetaSettings) -> tuple[Domains, Tensor, Tensor]:
        """`domains` again, with planes for their disjuncts, if these gain enough."""
        plain = self.subdomains(whole)
        seen = self.bounds.inspect(plain)
        if self.planes is None:
            return whole, seen.bounds, plain.multipliers
        self.planes.make(self.inspected(whole, seen), whole.disjunct)
        # A multiplier is the share of a plane where a coefficient is negative, as no slope is.
        first = torch.where(seen.neurons < 0, FIRST_SHARE, plain.multipliers)
        found = self._bounded(whole.with_multipliers(first), settings)
        missed = [-self.rows.margins(b, whole.disjunct).amax(0) for b in (seen.bounds, found[1])]
        if not self.planes.judge(*missed):
            return whole, seen.bounds, plain.multipliers
        return self._scaled(*found)

    def _bounded(self, domains: Domains, settings: BetaSettings) -> tuple[Domains, Tensor, Tensor]:
        goal = self.rows.goal(domains.disjunct, self.dtype)
        bounds, found = self.bounds.optimized(self.subdomains(domains), goal, settings)
        return domains.with_multipliers(found), bounds, found

    def _scaled(
        self, domains: Domains, bounds: Tensor, multipliers: Tensor
    ) -> tuple[Domains, Tensor, Tensor]:
        seen = self.bounds.inspect(self.subdomains(domains))
        self.bounds.scale = self.bounds.scaled(seen)
        return domains, bounds, multipliers

    def inspected(self, domains: Domains, seen: Inspection) -> Inspected:
        """Domains with what is `seen` of them."""
        thresholds = self.rows.goal(domains.disjunct, self.dtype)
        return inspected(self.bounds, self.subdomains(domains), seen, thresholds)

    def subdomains(self, domains: Domains, dtype: torch.dtype | None = None) -> Subdomains:
        """To bound them."""
        rows = self.rows.of_domains(domains.disjunct, dtype or self.dtype)
        sets = None if self.planes is None else self.planes.of(domains.disjunct)
        return domains.subdomains(rows, sets)
