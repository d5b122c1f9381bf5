"""Branch and bound on the signs of ReLU inputs, bounded by β-CROWN (Wang et al. 2021).

Every domain is of one disjunct and carries its rows; it is closed when one of them is proved
greater than its threshold. The first attempt keeps the root's bounds of intermediate neurons and
trusts the multipliers; where it does not end soon, and the network is small enough, a second one
begins anew: it splits early layers first and bounds all later neurons again in every domain.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.beta import BetaSettings
from runner.engine.bounds.subdomains import Inspection, Subdomains
from runner.engine.search.branching import Inspected, early, most_promising
from runner.engine.search.domains import Domains, DomainStore, joined
from runner.engine.search.leaves import Certificate
from runner.engine.search.narrowing import Narrowing
from runner.engine.search.rounds import run_rounds
from runner.engine.search.search import SearchContext, SearchEnd
from runner.engine.search.seeds import Seeds, minimiser, search
from runner.engine.search.sharing import Meeting
from runner.engine.search.split_root import SplitRoot
from runner.engine.search.trial import Trial
from runner.engine.specs import exact_in
from runner.engine.targets import Target


@dataclass(frozen=True)
class ReluSplitSettings:
    """`batch`: domains bounded at once, None: from the memory budget. `trial`: domains after which
    the first attempt may end, where a second is possible: with at most `most_rows` start rows.
    `seeds`: domains that lead an attack, in the first of every `attack_every` (at least 2) rounds.
    `child`: few iterations, as another split gains more in the time; `shared`:
    more, where planes take much, as shares of these are to be found, too.
    """

    batch: int | None = None
    root: BetaSettings = field(default_factory=lambda: BetaSettings(iterations=60, decay=0.98))
    child: BetaSettings = field(
        default_factory=lambda: BetaSettings(iterations=4, many=False, patience=3)
    )
    shared: BetaSettings = field(default_factory=lambda: BetaSettings(iterations=8, patience=3))
    seeds: int = 32
    attack_every: int = 4
    trial: int = 3000
    most_rows: int = 1000


# Domains that are bounded before planes are made: what is proved with fewer needs none.
EASY = 64


class ReluSplit:
    """A `Search` and its `Tree`."""

    name = "beta-crown"
    gains = False

    def __init__(
        self,
        context: SearchContext,
        settings: ReluSplitSettings | None = None,
        *,
        stalls: bool = False,
    ) -> None:
        """`stalls`: whether it pauses, as another way might do, where it would else go on alone."""
        self._context = context
        self._pauses = stalls and context.workload is None
        self.stalled = False
        with context.tag.kind(Memory.BOUNDS):
            self._root = SplitRoot.of(context)
        self._narrowing = Narrowing(context, self._root, self._close)
        self._settings = settings or ReluSplitSettings()
        workload, ranks = context.workload, context.sharing.ranks
        self.batch = max(1, (workload.batch // ranks if workload else self._own_batch) // 2)
        self.store = DomainStore(self._context.tag)
        self.begun, self.open_share = False, 1.0
        self._tightens = False
        # Whether a second attempt would gain; None: nobody asked yet.
        self._pays: bool | None = None
        self._trial = Trial(self._settings.trial)
        # Of the first attempt: domains this rank has bounded, and all ranks until they last met.
        self._visited, self._visited_by_all = 0, 0
        disjuncts = context.case.specs.disjuncts
        # Of every disjunct: the least margin of a closed domain, and domains that no way decides.
        self._closed = torch.full((disjuncts,), torch.inf, dtype=torch.float64)
        self._undecided = torch.zeros(disjuncts, dtype=torch.bool)

    @property
    def _own_batch(self) -> int:
        return self._settings.batch or self._root.batch

    @property
    def complete(self) -> bool:
        return not bool(self._undecided.any())

    @property
    def waits(self) -> bool:
        ranks = self._context.sharing.ranks
        visited = self._visited * ranks
        return (
            not len(self.store)
            or self._tries_again(visited)
            or self._wants_planes(visited)
            or (self._pauses and self._trial.due(visited))
        )

    @property
    def blank(self) -> Domains:
        return self._whole.select(torch.zeros(len(self._whole), dtype=torch.bool))

    def run(self) -> SearchEnd:
        return run_rounds(self, self._context)

    def go_on(self) -> None:
        """Alone from now on: no other way was found."""
        self._pauses = self.stalled = False

    def begin(self) -> None:
        """From the whole box, for the disjuncts that are open."""
        self.begun = True
        disjuncts = self._context.case.open.nonzero()[:, 0]
        self._start(*self._root.domains(disjuncts, self._settings.root))

    def _start(self, domains: Domains, bounds: Tensor, multipliers: Tensor) -> None:
        """From domains of the whole box."""
        self.store = DomainStore(self._context.tag)
        self._undecided[:] = False
        self._closed[domains.disjunct.cpu()] = torch.inf
        self._whole = domains.to(torch.device("cpu"))
        if self._context.sharing.rank == 0:
            self._keep_open(domains, bounds, multipliers)
            self._record(len(domains), 0)

    def round(self) -> None:
        if not self._pauses and self._tries_again(self._visited_by_all) and self._stalls():
            self._pays = self._root.tightening_pays()
        if self._pays and not self._tightens:
            self._tightens = True
            self.begin()
        elif self._wants_planes(self._visited_by_all):
            self._begin_with_planes()
        elif len(self.store):
            with self._context.tag.kind(Memory.ALPHA):
                taken = self.store.take(self.batch).to(self._context.device)
            self._visited += 2 * len(taken)
            self._split(taken)

    def _wants_planes(self, visited: int) -> bool:
        planes = self._root.planes
        return self._free and planes is not None and planes.possible and visited >= EASY

    def _begin_with_planes(self) -> None:
        """Anew for what is open still: whether planes gain, ranks need not agree on."""
        device = self._context.device
        open_ = self._context.case.open[self._whole.disjunct.to(device)].cpu()
        with self._context.tag.kind(Memory.ALPHA):
            whole = self._whole.select(open_).to(device)
        self._start(*self._root.with_planes(whole, self._settings.root))

    def _tries_again(self, visited: int) -> bool:
        settings = self._settings
        small = 0 < self._root.tightener.rows <= settings.most_rows
        first = self._pays is None and self._free
        return first and small and self._trial.due(visited)

    def _stalls(self) -> bool:
        case = self._context.case
        return self._trial.stalls(self._visited_by_all, -float(case.margins[case.open].min()))

    def standing(self) -> Tensor:
        disjuncts = len(self._closed)
        rest = torch.tensor([self.store.share, self._visited], dtype=torch.float64)
        least = self.store.least_margins(disjuncts)
        return torch.cat([least, self._closed, self._undecided.double(), rest])

    def conclude(self, meeting: Meeting) -> None:
        """What is proved so far, in the case."""
        case, disjuncts = self._context.case, len(self._closed)
        columns = meeting.standings.split([disjuncts] * 3 + [1, 1], 1)
        least, closed = columns[0].amin(0), columns[1].amin(0)
        self._undecided = columns[2].bool().any(0)
        self._visited_by_all = int(columns[4].sum())
        self.open_share = float(columns[3].sum()) / max(1, len(self._whole))
        done = (least == torch.inf) & ~self._undecided
        proved = torch.where(closed.isfinite(), closed, 0.0)
        margins = torch.where(done, proved, least).to(case.margins)
        usable = case.open & margins.isfinite()
        case.margins = torch.where(usable, torch.fmax(case.margins, margins), case.margins)
        if self._free:
            case.open &= ~done.to(case.open.device)
        due = self._pauses and bool(case.open.any()) and self._trial.due(self._visited_by_all)
        self.stalled = due and self._stalls()

    def _split(self, taken: Domains) -> bool:
        """Splits domains and bounds their children; whether a counterexample was found."""
        narrows = self._free and not self._tightens
        clips = narrows and self._narrowing.clips
        seen = self._seen(taken, proven=clips)
        turn = self._context.progress.rounds % self._settings.attack_every == 1
        if self._free and turn and self._attacked(taken, seen):
            return True
        seen = self._seen_under_planes(taken, seen, proven=clips)
        if narrows:
            taken, seen = self._narrowing.narrowed(taken, seen, clips=clips)
            if not len(taken):
                self._record(0, 0)
                return False
        split = self._root.inspected(taken, seen)
        columns, splittable = self._chosen(taken, split)
        if not bool(splittable.all()):
            if self._free and self._decided_by_lp(taken.select(~splittable)):
                return True
            if not bool(splittable.any()):
                self._record(0, int(taken.depth.max()))
                return False
        with self._context.tag.kind(Memory.ALPHA):
            children = joined(
                [taken.child(split.child(columns, sign)).select(splittable) for sign in (1, -1)]
            )
        self._bound(self._tightened(children) if self._tightens else children)
        self._record(2 * int(splittable.sum()), int(taken.depth.max()) + 1)
        return False

    @property
    def _free(self) -> bool:
        """Whether what is proved closes a domain: a fixed workload goes on with it."""
        return self._context.workload is None

    def _seen(self, taken: Domains, *, proven: bool) -> Inspection:
        parents = self._root.subdomains(taken)
        return self._narrowing.seen(parents) if proven else self._root.bounds.inspect(parents)

    def _seen_under_planes(self, taken: Domains, seen: Inspection, *, proven: bool) -> Inspection:
        """What is seen once planes are fitted to domains, where it is time and they gain by it."""
        planes = self._root.planes
        if planes is None or not planes.due(self._visited):
            return seen
        before = self._root.inspected(taken, seen)
        planes.fit(before, taken.disjunct)
        anew = self._seen(taken, proven=proven)
        missed = [(before.thresholds - of.bounds).amin(0) for of in (seen, anew)]
        return anew if planes.keep(*missed) else seen

    def _chosen(self, taken: Domains, split: Inspected) -> tuple[Tensor, Tensor]:
        """The column [B] that each domain is split at, and whether there is any [B]."""
        if self._tightens and not self._root.bent:
            family = taken.phases.unique(dim=0, return_inverse=True)[1]
            return early(split, family, int(family.max()) + 1)
        promises = EnginePart.PROMISES not in self._context.settings.without
        return most_promising(split, promises=promises)

    def _bound(self, children: Domains) -> None:
        """Stores those that stay open."""
        root, planes = self._root, self._root.planes
        goal = root.rows.goal(children.disjunct, root.dtype)
        if not self._free:
            goal = torch.full_like(goal, torch.inf)
        much = planes is not None and planes.are_much
        settings = self._settings.shared if much else self._settings.child
        parents = children.margins if self._free else None
        found = root.bounds.optimized(root.subdomains(children), goal, settings, parents)
        self._keep_open(children, *found)

    def _close(self, disjuncts: Tensor, margins: Tensor) -> None:
        """Domains of these disjuncts [B] are closed with such margins [B]."""
        least = margins.new_full((len(self._closed),), torch.inf)
        least.scatter_reduce_(0, disjuncts, margins, "amin")
        self._closed = torch.minimum(self._closed, least.cpu())

    def _tightened(self, children: Domains) -> Domains:
        """Those that are not empty, with new bounds of neurons; each set of phases once."""
        root = self._root
        family = children.phases.unique(dim=0, return_inverse=True)[1]
        # The last member of a family stands for it; all have the same splits.
        member = torch.arange(len(children), device=family.device)
        of_family = family.new_zeros(int(family.max()) + 1).index_copy_(0, family, member)
        found = root.tightener.tightened(children.select(of_family).before)
        lower = torch.maximum(children.lower, found.lower[family])
        upper = torch.minimum(children.upper, found.upper[family])
        possible = (lower <= upper).all(1)
        return replace(children, lower=lower, upper=upper).select(possible)

    def _keep_open(self, domains: Domains, bounds: Tensor, multipliers: Tensor) -> None:
        """Stores the domains that bounds [K, B], of these multipliers [K, B, V], do not close."""
        disjunct = domains.disjunct
        margins = self._root.rows.margins(bounds, disjunct)
        closed = (margins > 0).any(0)
        if not self._free:
            closed = torch.zeros_like(closed)
        elif bool(closed.any()):
            proved = self._proved(domains.select(closed), multipliers[:, closed])
            margins[:, closed] = proved
            closed[closed.clone()] = (proved > 0).any(0)
        domains = domains.with_multipliers(multipliers)
        # A child holds less than its parent, so what was proved of the parent holds.
        best = torch.maximum(margins.amax(0), domains.margins)
        best = torch.minimum(best, domains.ceiling)
        self._close(disjunct[closed], best[closed])
        stood = torch.where(domains.stood.isfinite(), domains.stood, best)
        kept = replace(domains, margins=best, urgency=best, stood=stood).select(~closed)
        if len(kept):
            self.store.put(self._with_families(kept) if self._tightens else kept)

    def _proved(self, domains: Domains, multipliers: Tensor) -> Tensor:
        """Margins [K, B] that hold in real arithmetic, of the multipliers that were found: in the
        search's precision, and in float64 what its rounding leaves open.
        """
        root = self._root
        margins = multipliers.new_full(multipliers.shape[:2], -torch.inf, dtype=torch.float64)
        if exact_in(root.dtype, root.rows.rows):
            margins = self._proved_in(root.dtype, domains, multipliers)
        left = ~(margins > 0).any(0)
        if root.dtype is not torch.float64 and bool(left.any()):
            some = self._proved_in(torch.float64, domains.select(left), multipliers[:, left])
            margins[:, left] = some
        return margins

    def _proved_in(self, dtype: torch.dtype, domains: Domains, multipliers: Tensor) -> Tensor:
        root, disjunct = self._root, domains.disjunct
        found = replace(root.subdomains(domains, dtype), multipliers=multipliers).to(dtype)
        return root.rows.margins(root.bounds.to(dtype).bound(found, proven=True), disjunct)

    def _with_families(self, domains: Domains) -> Domains:
        """Domains of the same splits are as urgent as their weakest, so they stay together."""
        phases, family = domains.phases.unique(dim=0, return_inverse=True)
        weakest = domains.margins.new_full((len(phases),), torch.inf)
        weakest.scatter_reduce_(0, family, domains.margins, "amin")
        return replace(domains, urgency=weakest[family])

    def _attacked(self, taken: Domains, seen: Inspection) -> bool:
        """Whether the weakest domains lead to a confirmed counterexample."""
        context, root = self._context, self._root
        margins = seen.bounds - root.rows.goal(taken.disjunct, root.dtype)
        weakest = taken.margins.argsort()[: self._settings.seeds]
        nearest = margins[:, weakest].argmax(0)
        x = minimiser(context.network, seen.inputs[nearest, weakest], context.within)
        disjunct = taken.disjunct[weakest]
        rows = root.rows.of_domains(disjunct, x.dtype)
        limits = root.rows.limits[:, disjunct].to(x.dtype)
        return search(context, Seeds(x, disjunct, rows, limits))

    def _decided_by_lp(self, leaves: Domains) -> bool:
        """Closes domains without an unstable neuron; whether one has a confirmed counterexample."""
        context, rows = self._context, self._root.rows
        for index in range(len(leaves)):
            context.checkpoint()
            leaf = leaves.select(torch.tensor([index])).decided()
            disjunct = int(leaf.disjunct)
            found = self._root.leaves.solve(
                leaf.phases[0], leaf.lower[0], rows.rows[:, disjunct], rows.thresholds[:, disjunct]
            )
            if isinstance(found, Certificate):
                margin = self._certified(leaf, found)
                if margin > 0:
                    margin = min(margin, float(leaf.ceiling))
                    self._closed[disjunct] = min(float(self._closed[disjunct]), margin)
                    continue
            elif found is not None:
                within = context.within
                point = found.to(within.lower)
                point = torch.minimum(torch.maximum(point, within.lower), within.upper)
                candidate = point.flatten().cpu().numpy(), Target(context.number, disjunct)
                if context.confirm(candidate):
                    return True
            self._undecided[disjunct] = True
        return False

    def _certified(self, leaf: Domains, certificate: Certificate) -> float:
        """The margin of a leaf that a solver's multipliers prove in real arithmetic."""
        bounds = self._root.bounds.to(torch.float64)
        multipliers = certificate.multipliers[bounds.space.columns] / bounds.scale
        rows = certificate.row.reshape(1, 1, -1)
        domain = Subdomains(rows, leaf.phases, leaf.before, multipliers.reshape(1, 1, -1))
        found = bounds.bound(domain.to(torch.float64), proven=True)
        return float(found) - certificate.threshold

    def _record(self, domains: int, depth: int) -> None:
        """The least margin over the disjuncts that are open on this rank, or of all in the end."""
        least = self.store.least_margins(len(self._closed))
        waiting = least.isfinite()
        margins = torch.where(waiting, least, self._closed)
        known = self._context.case.margins.cpu()
        known = torch.where(margins.isfinite(), torch.fmax(known, margins), known)
        bound = known[waiting] if bool(waiting.any()) else known
        self._context.progress.round(domains, depth, len(self.store), float(bound.min()))
