"""Which branch and bound goes on with an open case, and all open cases one after another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from runner.contract.vocabulary import EnginePart, Method
from runner.contract.workload import Workload
from runner.engine.bounds.bent_space import nodes_to_split
from runner.engine.bounds.hinges import bends_once
from runner.engine.bounds.refinement import Depth
from runner.engine.bounds.split import bends_otherwise
from runner.engine.bounds.tagging import Tagger
from runner.engine.clock import Deadline
from runner.engine.network.graph import Op
from runner.engine.search.cases import CaseProgress, OpenCase
from runner.engine.search.deepening import Deepening
from runner.engine.search.input_split import InputSplit
from runner.engine.search.many_boxes import ManyBoxes, are_many
from runner.engine.search.plane_split import PlaneSplit
from runner.engine.search.relu_split import ReluSplit
from runner.engine.search.search import Progress, Search, SearchContext, SearchEnd
from runner.engine.search.sharing import Sharing
from runner.engine.specs import box_around, box_within, boxes_around
from runner.problem.property.model import Property

# Up to so many inputs that may vary, halving boxes is quicker than splitting neurons.
FEW_INPUTS = 20
# With more inputs than this, halving boxes leads nowhere.
MOST_INPUTS = 100
# Of the time that is left: what each search is given where there are two to choose from.
TRIAL_SHARE = 0.2
# A first search that has closed so much in its trial goes on without a look at the other.
GOOD_SHARE = 0.5

# Of the time that is left: how long trees of neurons grow at most.
TREES_SHARE = 0.6

# Of all time: how long many boxes are halved together.
TOGETHER_SHARE = 0.9

MakeSearch = Callable[[SearchContext], Search]


def few_inputs(case: OpenCase) -> bool:
    return case.free_inputs <= FEW_INPUTS


def halved_together(cases: list[OpenCase]) -> bool:
    """Whether there are so many boxes, of few inputs each, that nothing is done for one alone until
    all of them were halved together.
    """
    without = cases[0].settings.without if cases else frozenset()
    return are_many(len(cases), without) and all(map(few_inputs, cases))


def tightest_bounds(cases: list[OpenCase]) -> Method:
    """The bounds that pay before the searches: a box is halved in less time than α-CROWN takes."""
    left_out = any(EnginePart.ALPHA in case.settings.without for case in cases)
    return Method.CROWN if left_out or all(map(few_inputs, cases)) else Method.ALPHA_CROWN


@dataclass
class TrialClock:
    """`limit`: when it ends, in seconds of `time.perf_counter`; None: there is none."""

    limit: float | None = None

    def over(self) -> bool | None:
        return None if self.limit is None else time.perf_counter() > self.limit


@dataclass(frozen=True)
class Complete:
    """The complete phase of one instance."""

    instance: Property
    device: torch.device
    seed: int
    tag: Tagger
    deadline: Deadline
    sharing: Sharing
    progress: Progress
    workload: Workload | None = None

    def run(self, cases: list[OpenCase]) -> SearchEnd:
        """PROVED when every case is; may raise DeadlineReached."""
        outcomes = []
        if self.workload is None and halved_together(cases):
            self._halve_together(cases)
            cases = [case for case in cases if bool(case.progress.open.any())]
        for case in cases:
            outcome = self._decide(case)
            if outcome is SearchEnd.GAVE_UP and self.workload is None:
                outcome = self._decided_in_float64(case)
            outcomes.append(outcome)
            if outcomes[-1] is SearchEnd.COUNTEREXAMPLE:
                return SearchEnd.COUNTEREXAMPLE
        return SearchEnd.GAVE_UP if SearchEnd.GAVE_UP in outcomes else SearchEnd.PROVED

    def _halve_together(self, cases: list[OpenCase]) -> None:
        """Each rank cases of its own; what is proved of them all ranks hear then."""
        sharing, states = self.sharing, [case.progress for case in cases]
        with sharing.search():
            with sharing.round():
                self._halved(cases[sharing.rank :: sharing.ranks])
            sharing.meet(0, torch.zeros(0, dtype=torch.float64), None)
        if sharing.ranks > 1:
            hear_margins(states, sharing)

    def _halved(self, cases: list[OpenCase]) -> None:
        self.progress.start(ManyBoxes.name)
        if not cases:
            return
        network, settings = cases[0].network, cases[0].settings
        states = [case.progress for case in cases]
        chosen = [self.instance.cases[case.number] for case in cases]
        roots = boxes_around(chosen, network.graph.input.shape, self.device, torch.float64)
        boxes = ManyBoxes(network, states, settings, self.tag, self.sharing.checkpoint, roots)
        # A case that is left is searched by itself: that takes time too.
        boxes.run(lambda: self.sharing.passed(TOGETHER_SHARE), self.progress.round)

    def _decide(self, case: OpenCase) -> SearchEnd:
        """By the search that fits best, or by the other where trials speak for it."""
        trial = TrialClock()
        context = self._context(case, trial)
        makers = fitting(case)
        if fits_planes(case) and self.workload is None:
            outcome = self._run(PlaneSplit(context, stalls=bool(makers)))
            if outcome not in (SearchEnd.PAUSED, SearchEnd.GAVE_UP):
                return outcome
        if not makers:
            return SearchEnd.GAVE_UP
        first = makers[0](context)
        if self.workload is not None or len(makers) == 1:
            return self._run(first)
        outcome = self._tried(first, trial)
        if outcome is SearchEnd.PAUSED and (first.gains or first.open_share < GOOD_SHARE):
            return self._run(first)
        if outcome not in (SearchEnd.PAUSED, SearchEnd.GAVE_UP):
            return outcome
        second = makers[1](context)
        if outcome is SearchEnd.GAVE_UP:
            return self._run(second)
        outcome = self._tried(second, trial)
        if outcome not in (SearchEnd.PAUSED, SearchEnd.GAVE_UP):
            return outcome
        gave_up = outcome is SearchEnd.GAVE_UP
        return self._run(first if gave_up or first.open_share <= second.open_share else second)

    def _decided_in_float64(self, case: OpenCase) -> SearchEnd:
        """Halves boxes again where float32 had no number left between their limits."""
        coarse = case.progress.box.lower.dtype is not torch.float64
        if not coarse or not few_inputs(case):
            return SearchEnd.GAVE_UP
        shape, of_file = case.network.graph.input.shape, self.instance.cases[case.number]
        case.progress.box = box_around(of_file, shape, self.device, torch.float64)
        case.progress.known = None
        return self._run(InputSplit(self._context(case, TrialClock())))

    def _run(self, search: Search) -> SearchEnd:
        self.progress.start(search.name)
        return search.run()

    def _tried(self, search: Search, trial: TrialClock) -> SearchEnd:
        trial.limit = time.perf_counter() + TRIAL_SHARE * self.deadline.left
        outcome = self._run(search)
        trial.limit = None
        return outcome

    def _context(self, case: OpenCase, trial: TrialClock) -> SearchContext:
        progress = case.progress
        if progress.known is not None:
            progress.known = self.sharing.same(progress.known)
        shape = case.network.graph.input.shape
        return SearchContext(
            network=case.network,
            case=progress,
            number=case.number,
            within=box_within(
                self.instance.cases[case.number], shape, self.device, case.network.dtype
            ),
            settings=case.settings,
            device=self.device,
            seed=self.seed,
            tag=self.tag,
            sharing=self.sharing,
            progress=self.progress,
            workload=self.workload,
            pauses=trial.over,
            deepen=lambda depth: self._deepen(case, depth, trial),
        )

    def _deepen(self, case: OpenCase, depth: Depth, trial: TrialClock) -> frozenset[str]:
        share = TREES_SHARE if trial.limit is None else TRIAL_SHARE
        grown = case.deepen(depth, self.deadline.share_after(share))
        if case.progress.known is not None:
            case.progress.known = self.sharing.same(case.progress.known)
        return grown


def hear_margins(cases: list[CaseProgress], sharing: Sharing) -> None:
    """What was proved of each case by the rank that it belongs to: case n to rank n modulo P."""
    counts = [len(case.margins) for case in cases]
    margins = torch.cat([case.margins for case in cases])
    still_open = torch.cat([case.open for case in cases])
    own = torch.arange(len(cases), device=margins.device) % sharing.ranks == sharing.rank
    mine = own.repeat_interleave(torch.tensor(counts, device=margins.device))
    found = sharing.gather(torch.where(mine, margins, -torch.inf)).amax(0)
    margins = torch.where(still_open, torch.fmax(margins, found), margins)
    still_open = still_open & ~(found > 0)
    for case, least, left in zip(
        cases, margins.split(counts), still_open.split(counts), strict=True
    ):
        case.margins, case.open = least, left


def fitting(case: OpenCase) -> list[MakeSearch]:
    """The searches that apply, the more hopeful first: it has less to split."""
    makers: list[MakeSearch] = []
    if case.progress.known is not None and splits_neurons(case):
        relus = not bends_otherwise(case.network) and EnginePart.TREES not in case.settings.without
        makers.append(Deepening if relus else ReluSplit)
    if case.free_inputs <= MOST_INPUTS:
        makers.append(InputSplit)
    if few_inputs(case) and case.free_inputs < unstable_neurons(case):
        makers.reverse()
    return makers


def splits_neurons(case: OpenCase) -> bool:
    """Whether there is a node with neurons to split."""
    if bends_otherwise(case.network):
        return bool(nodes_to_split(case.network)) and EnginePart.BENT not in case.settings.without
    return bool(case.network.relaxed)


def fits_planes(case: OpenCase) -> bool:
    """Whether ReLUs have planes in the inputs, which go before all other searches until they stall:
    they are tighter than what these know, and often prove a case at its root.
    """
    left_out = EnginePart.PLANE_SPLITS in case.settings.without or case.progress.known is None
    some = len(case.progress.specs.rows) > 0 and case.free_inputs <= MOST_INPUTS
    return some and not left_out and bends_once(case.network)


def unstable_neurons(case: OpenCase) -> int:
    """What neuron splits may be of, by the bounds that are known: inputs of ReLUs that may have
    both signs, and of anything else that bends all that are not one value.
    """
    known = case.progress.known
    if known is None:
        return 0
    relaxed = [n for n in case.network.graph.nodes if n.name in case.network.relaxed]
    of_relus = {node.inputs[0] for node in relaxed if node.op is Op.RELU}
    bent = {node.inputs[0] for node in relaxed if node.op is not Op.RELU}
    return sum(
        int(((known.intervals[name].lower < 0) & (known.intervals[name].upper > 0)).sum())
        for name in of_relus - bent
    ) + sum(int((known.intervals[name].lower < known.intervals[name].upper).sum()) for name in bent)
