"""Bounds of every case and disjunct, from the cheapest method to the tightest one asked for.

Slopes are searched in the precision of the network. Bounds are proved in it, too; those of specs,
which are few, in float64, and all where rounding would cost too much of their width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from runner.contract.vocabulary import BOUNDS, EnginePart, Method
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.cells import StepInputs
from runner.engine.bounds.ends import Ends
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.precision import CHEAP, DEAR, are_coarse
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.reach import reach
from runner.engine.bounds.refinement import NO_REFINEMENT, Depth, Refinement
from runner.engine.bounds.rows import Rows
from runner.engine.bounds.split import bends_otherwise
from runner.engine.bounds.start_rows import StartRows
from runner.engine.bounds.tagging import Tagger
from runner.engine.search.by_cells import CellClock, exclude_by_cells
from runner.engine.search.cases import CaseProgress, OpenCase
from runner.engine.search.many_boxes import are_many, bound_together
from runner.engine.search.neuron_trees import NeuronTrees
from runner.engine.specs import Room, Specs, box_around, boxes_around, no_room
from runner.engine.targets import Target
from runner.problem.property.model import Property

# Multiply-adds of rows of start nodes, from which on specs get a linear bound before them.
EARLY_WORK = 5_000_000_000
# No rows of start nodes are bounded after these shares of the time: what is left is for specs.
LAST_SHARES = {Method.CROWN: 0.8, Method.ALPHA_CROWN: 0.9}
# Where CROWN has taken so much of the time, α-CROWN would not get far with them.
ALPHA_SHARE = 0.5
# Where CROWN of dear rows has taken so much of it, even a few steps of α on them would leave too
# little for branch and bound.
DEAR_SHARE = 0.1
# α of dear rows at first: for a Transformer (vit, pgd_2_3_16) a third of the time of all steps, and
# nine tenths of what they gain.
FEW_ITERATIONS, FEW_STEP = 4, 0.5
# Of the width of a start node's bounds, what those must have taken away for all steps to follow,
# where boxes or ReLUs are split after that: splits gain more in the time, of what bends otherwise
# less. Where all steps are not so many multiply-adds (some seconds of a core), they follow anyway.
FEW_GAIN, LONG_WORK = 0.05, 100_000_000_000

# No cells are looked at after this share of the time: until then none had been reached, and what is
# bounded otherwise has to tell as many cells apart.
CELLS_SHARE = 0.9

# Of a bound: what rounding may change in a search for slopes, roughly.
SEARCH_ERROR = 1e-5


def ladder(tightest: Method) -> tuple[Method, ...]:
    """The bounds up to `tightest`, cheapest first; all of them for a complete verification."""
    return BOUNDS if tightest is Method.COMPLETE else BOUNDS[: BOUNDS.index(tightest) + 1]


def _never(share: float) -> bool:
    return False


@dataclass(frozen=True)
class TimeShares:
    """Whether a share of the time is over: `passed` is for what all ranks do alike, `passed_apart`
    for what each does alone.
    """

    passed: Callable[[float], bool] = _never
    passed_apart: Callable[[float], bool] = _never


class Incomplete:
    """Proves disjuncts unreachable by bounds alone. `checkpoint` may raise between blocks."""

    def __init__(
        self,
        network: BoundNetwork,
        instance: Property,
        device: torch.device,
        settings: Settings,
        tag: Tagger,
        checkpoint: Callable[[], None],
        rows: Rows | None = None,
        room: Room = no_room,
        check: Callable[[], None] | None = None,
        shares: TimeShares | None = None,
    ) -> None:
        """`room`: how far above its limit a row must be proved; `check`: the checkpoint of what all
        ranks do alike, where `checkpoint` is for what each does alone; `shares`: of the time.
        """
        self._check = check or checkpoint
        self._shares = shares or TimeShares()
        self.progress = ""
        self._network = network
        self._instance = instance
        self._device = device
        self._settings = settings
        self._tag = tag
        self._checkpoint = checkpoint
        self._rows = rows
        self.method = Method.IBP
        self._splits = self._splits_soon = False
        self._done: set[Method] = set()
        self.cases: list[CaseProgress] = []
        if instance.cases:
            self.cases = self._at_first(room)

    def _at_first(self, room: Room) -> list[CaseProgress]:
        """Nothing is proved of any case yet."""
        cases, device = self._instance.cases, self._device
        shape, dtype = self._network.graph.input.shape, self._network.dtype
        boxes = boxes_around(cases, shape, device, dtype)
        counts = [len(case.unsafe) for case in cases]
        nothing = torch.full((sum(counts),), -torch.inf, dtype=torch.float64, device=device)
        everything = torch.ones(sum(counts), dtype=torch.bool, device=device)
        parts = zip(
            boxes.lower.split(1),
            boxes.upper.split(1),
            Specs.of_all(cases, device, room),
            nothing.split(counts),
            everything.split(counts),
            strict=True,
        )
        return [
            CaseProgress(Interval(lower, upper), specs, margins, open_)
            for lower, upper, specs, margins, open_ in parts
        ]

    def run(self, tightest: Method, *, splits: bool = False, searched: bool = False) -> None:
        """Climbs the ladder, from where it stands, until nothing is open or `tightest` is done.
        `splits`: whether boxes are cut after that; `searched`: whether anything is split.
        """
        self._splits = splits
        self._splits_soon = searched and not bends_otherwise(self._network)
        for method in ladder(tightest):
            if method in self._done:
                continue
            self._done.add(method)
            if method is Method.IBP and tightest is not method and self._many:
                # A batch takes no longer by CROWN than box after box by interval bounds.
                self.method = Method.CROWN
                self._bound_together()
            for case in self.cases:
                if bool(case.open.any()):
                    self.method = method
                    self._bound(case, method)

    def enumerate_cells(self) -> None:
        """Goes through the cells of boxes that have finitely many, while there is time for it."""
        network, settings = self._network, self._settings
        if EnginePart.WHOLE in settings.without:
            return
        steps = StepInputs.of(network, self._device)
        if not steps.readers:
            return

        def told(done: int, count: int) -> None:
            self.progress = f"{done} of {count} cells"

        clock = CellClock(self._check, lambda: self._shares.passed(CELLS_SHARE), told)
        for number, case in enumerate(self.cases):
            root = self._root(number)
            cells = steps.cells(root) if bool(case.open.any()) else None
            if cells is not None:
                exclude_by_cells(network, case, root, cells, clock, self._tag, settings.budget)

    def close(self, target: Target) -> None:
        """A disjunct that is excluded by other means."""
        case = self.cases[target.case]
        case.open[target.disjunct] = False
        case.margins[target.disjunct] = torch.fmax(
            case.margins[target.disjunct], torch.zeros_like(case.margins[target.disjunct])
        )

    def in_float64(self, number: int) -> None:
        """Works on a case in float64 from now on, from the beginning."""
        case = self.cases[number]
        case.box, case.known = self._box_in_float64(case), None

    def _box_in_float64(self, case: CaseProgress) -> Interval:
        return self._root(next(n for n, other in enumerate(self.cases) if other is case))

    def _root(self, number: int) -> Interval:
        """The box of a case in float64."""
        shape = self._network.graph.input.shape
        return box_around(self._instance.cases[number], shape, self._device, torch.float64)

    @property
    def open_targets(self) -> list[Target]:
        return [
            Target(case, disjunct)
            for case, progress in enumerate(self.cases)
            for disjunct in progress.open.nonzero()[:, 0].tolist()
        ]

    @property
    def open_cases(self) -> list[OpenCase]:
        return [
            OpenCase(self._network, self._settings, number, case, partial(self._deepen, case))
            for number, case in enumerate(self.cases)
            if bool(case.open.any())
        ]

    def _deepen(self, case: CaseProgress, depth: Depth, until: float) -> frozenset[str]:
        """Neurons by trees, then the specs with what that gives; the nodes whose trees grew."""

        def over() -> bool:
            return self._shares.passed_apart(until)

        trees = NeuronTrees(
            self._network, self._tag, self._checkpoint, over, self._settings.budget, depth
        )
        self._bound_with(case, Method.ALPHA_CROWN, Refinement(over=over, trees=trees))
        return frozenset(trees.grown)

    @property
    def lower_bound(self) -> float:
        """The least margin over all cases and disjuncts; inf when nothing is unsafe."""
        return min((case.bound for case in self.cases), default=math.inf)

    @property
    def _many(self) -> bool:
        return are_many(len(self.open_cases), self._settings.without)

    def _bound_together(self) -> None:
        shape = self._network.graph.input.shape
        roots = boxes_around(self._instance.cases, shape, self._device, torch.float64)
        bound_together(self._network, self.cases, self._settings, self._tag, self._check, roots)

    def _bound(self, case: CaseProgress, method: Method) -> None:
        """Where rows of start nodes take long, specs have bounds before them; and α of the rows a
        few steps before all of them: what those leave open has most of what they give.
        """
        if method is Method.IBP or not self._dear(case, method):
            self._bound_with(case, method, self._refinement(case, method))
            return
        self._bound_with(case, method, NO_REFINEMENT)
        if self._splits and self._ends_early(case):
            return
        if method is Method.ALPHA_CROWN and self._shares.passed(DEAR_SHARE):
            return
        few = replace(self._settings.alpha, iterations=FEW_ITERATIONS, step=FEW_STEP)
        idle: frozenset[str] = frozenset()
        for alpha in (few, None) if method is Method.ALPHA_CROWN else (None,):
            refinement = self._refinement(case, method)
            if refinement is NO_REFINEMENT or not bool(case.open.any()):
                return
            gains = self._bound_with(case, method, replace(refinement, idle=idle), alpha)
            if self._splits_soon and self._work(case, method) > LONG_WORK:
                idle = frozenset(name for name, gain in gains.items() if not gain >= FEW_GAIN)
                if len(idle) == len(gains):
                    return

    def _ends_early(self, case: CaseProgress) -> bool:
        """Whether the rows of a box had better end before its input, as a search over boxes has
        them do.
        """
        if case.known is None:
            return False
        ends, known = Ends(self._network, self._settings.budget), case.known
        starts = StartRows(self._network, self._settings)
        return any(
            ends.best(node.name, 2 * starts.count(node.name, known), known.intervals)
            for node in starts.nodes
        )

    def _dear(self, case: CaseProgress, method: Method) -> bool:
        """Whether rows of start nodes take long, as far as bounds tell that are known."""
        left_out = EnginePart.EARLY in self._settings.without
        return not left_out and self._work(case, method) > EARLY_WORK

    def _work(self, case: CaseProgress, method: Method) -> int:
        """Multiply-adds that rows of start nodes take, as far as bounds tell that are known."""
        if case.known is None:
            return 0
        # A step of α goes back and forth.
        steps = 2 * self._settings.alpha.iterations if method is Method.ALPHA_CROWN else 1
        return steps * StartRows(self._network, self._settings).work(case.known)

    def _refinement(self, case: CaseProgress, method: Method) -> Refinement:
        """Of what the open specs depend on, while there is time for it."""
        if method not in LAST_SHARES:
            return Refinement()
        if method is Method.ALPHA_CROWN and self._shares.passed(ALPHA_SHARE):
            return NO_REFINEMENT
        wanted = {}
        if self._dear(case, method):
            wanted = reach(self._network, case.specs.select(case.open).rows)
        share = LAST_SHARES[method]
        return Refinement(wanted, lambda: self._shares.passed_apart(share))

    def _propagator(
        self, method: Method, refinement: Refinement, alpha: AlphaSettings | None = None
    ) -> Propagator:
        settings = replace(self._settings, method=method, alpha=alpha or self._settings.alpha)
        return Propagator(
            self._network, settings, self._tag, self._checkpoint, self._rows, refinement
        )

    def _bound_with(
        self,
        case: CaseProgress,
        method: Method,
        refinement: Refinement,
        alpha: AlphaSettings | None = None,
    ) -> dict[str, float]:
        """What α has gained at start nodes. `alpha`: of their rows; those of specs are always taken
        in full.
        """
        propagator = self._propagator(method, refinement, alpha)
        # Once α has been spent on a case in float32, it stays there.
        rises = method is not Method.ALPHA_CROWN and case.box.lower.dtype is not torch.float64
        finer = self._box_in_float64(case) if rises and method is Method.CROWN else None
        shares = DEAR if self._dear(case, method) else CHEAP
        try:
            case.known = propagator.bound(case.box, case.known, finer, shares)
        finally:
            count = len(propagator.starts.nodes)
            self.progress = f"{method} of {propagator.refined} of {count} layers"
        if rises and method is Method.IBP and are_coarse(self._network, case.known):
            case.known = propagator.bound(self._box_in_float64(case))
        case.box = case.known.box
        specs = case.specs.select(case.open)
        whole = propagator if alpha is None else self._propagator(method, refinement)
        margins = self._margins(whole, case.known, specs)
        # fmax: bounds that overflowed (not a number) say nothing.
        case.margins = torch.where(case.open, torch.fmax(case.margins, margins), case.margins)
        case.open = case.open & ~(margins > 0)
        return propagator.gains

    def _margins(self, propagator: Propagator, bounds: NetworkBounds, specs: Specs) -> Tensor:
        """Of each disjunct [disjuncts], in blocks of whole ones: each can stop when it is done."""
        parts = []
        bounds = propagator.in_precision(bounds, torch.float64)
        for block in _blocks(specs, self._settings.row_block):

            def enough(best: Tensor, block: Specs = block) -> bool:
                # In the precision of the search: a proof may come to a little less.
                least = best[:, 0].double() - SEARCH_ERROR * best[:, 0].double().abs()
                return bool((block.margins(least)[block.disjunct] > 0).all())

            parts.append(propagator.spec_bounds(bounds, block.rows, enough)[:, 0])
        found = torch.cat(parts) if parts else specs.thresholds.new_zeros(0)
        return specs.margins(found)


def _blocks(specs: Specs, rows: int) -> Iterator[Specs]:
    """Blocks of at most `rows` rows, of whole disjuncts; only one that is longer is cut."""
    start = stop = 0
    for count in torch.bincount(specs.disjunct, minlength=specs.disjuncts).tolist():
        if stop > start and stop + count - start > rows:
            yield specs.part(start, stop)
            start = stop
        stop += count
        while stop - start > rows:
            yield specs.part(start, start + rows)
            start += rows
    if stop > start:
        yield specs.part(start, stop)
