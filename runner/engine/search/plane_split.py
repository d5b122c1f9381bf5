"""Branch and bound over the inputs of a network that bends once, each ReLU bounded by planes.

What is searched is the rows' hinges alone, so no rank needs another between two batches. A box is
halved at the input that moves its weakest row most through hinges that fall and bend there: those
that rise are convex, and their lines lose nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.hinge_planes import HingePlanes
from runner.engine.bounds.hinges import hinged
from runner.engine.bounds.interval import Interval
from runner.engine.search.box_store import Boxes, BoxStore, divisible, halves
from runner.engine.search.cuts import NO_WAY
from runner.engine.search.padded_rows import PaddedRows
from runner.engine.search.rounds import run_rounds
from runner.engine.search.search import SearchContext, SearchEnd
from runner.engine.search.seeds import Seeds, search
from runner.engine.search.sharing import Meeting
from runner.engine.search.trial import Trial

# Iterations of the root, and of a box that goes on from its parent's multipliers.
ROOT_ITERATIONS, ITERATIONS = 40, 12
# Boxes that are halved at once, at most; of a core.
BATCH = 32
# What planes of the rows of a batch may take, in numbers; of a core.
BATCH_VALUES = 1 << 18
# What multipliers of open boxes may take, about, for it not to stall; of a core.
STORE_BYTES = 1 << 28
# Boxes after which it may first be found to stall.
TRIAL = 500
# Every so many rounds an attack begins at the points of so many boxes.
ATTACK_EVERY, SEEDS = 4, 32
# An input whose end is where a row is least gains less from being halved, by this.
AT_END = 0.5
# Of what an input moves in all, what counts where one row alone may exclude a disjunct.
FEW_MOVED = 1e-3


@dataclass(frozen=True)
class PlaneBoxes(Boxes):
    """`row` [N]: of the weakest disjunct, the row nearest to its threshold; `multipliers`
    [N, rows, V] float16: of each row, to search on from; any give a bound.
    """

    row: Tensor
    multipliers: Tensor


class PlaneSplit:
    """A `Search` and its `Tree`. Of a network that bends once (`bends_once`), with bounds of every
    node.
    """

    name = "plane-split"
    gains = False

    def __init__(self, context: SearchContext, *, stalls: bool = False) -> None:
        """`stalls`: whether it pauses where it gains little, as another search may do better.
        Raises ValueError where no bounds are known.
        """
        case = context.case
        if case.known is None:
            raise ValueError("planes start from bounds of every node")
        self._context = context
        self._numbers = case.open.nonzero()[:, 0]
        self._specs = case.specs.counted_anew(case.open)
        # Of a conjunction, other rows exclude other places; a single row is cut where it is bent.
        rows_of = torch.bincount(self._specs.disjunct, minlength=len(self._numbers))
        self._several = torch.where(rows_of > 1, 1.0, FEW_MOVED)
        self._seeds = PaddedRows.of(case.specs)
        # Ranks begin their rounds when they have their own planes: none may end another's here.
        intervals, check = case.known.intervals, context.sharing.check
        rows = hinged(context.network, intervals, self._specs, context.tag, check)
        self._planes = HingePlanes(rows)
        budget, (_, falling, inputs) = context.settings.budget, self._planes.sizes
        each = max(1, falling * inputs) * max(1, len(self._specs.rows))
        fits = budget.scaled(BATCH_VALUES) // (2 * each)
        self.batch = max(1, min(fits, budget.scaled(BATCH)))
        self._bytes = self._planes.length * len(self._specs.rows) * torch.float16.itemsize
        self._most_bytes = budget.scaled(STORE_BYTES)
        self.store = BoxStore[PlaneBoxes]()
        self.begun, self.stalled, self.complete, self.open_share = False, False, True, 1.0
        self._closed = self._specs.thresholds.new_full((len(self._numbers),), torch.inf)
        self._rounds = 0
        # `visited`: boxes that this rank has bounded.
        self._visited, self._pauses, self._trial = 0, stalls, Trial(TRIAL)

    @property
    def waits(self) -> bool:
        visited = self._visited * self._context.sharing.ranks
        return not len(self.store) or (self._pauses and self._trial.due(visited))

    @property
    def blank(self) -> PlaneBoxes:
        return self._root().select(torch.zeros(1, dtype=torch.bool))

    def run(self) -> SearchEnd:
        return run_rounds(self, self._context)

    def begin(self) -> None:
        self.begun = True
        if self._context.sharing.rank == 0:
            self._keep_open(self._root(), ROOT_ITERATIONS)

    def round(self) -> None:
        if not len(self.store):
            return
        boxes = self.store.take(self.batch)
        self._rounds += 1
        if self._rounds % ATTACK_EVERY == 1 and self._attacked(boxes):
            return
        possible = divisible(boxes)
        left = possible.any(1)
        self.complete &= bool(left.all())
        boxes, possible = boxes.select(left), possible[left]
        if len(boxes):
            gains = torch.where(possible, self._gains(boxes), -1.0)
            self._keep_open(self._halved(boxes, gains.argmax(1)), ITERATIONS)

    def standing(self) -> Tensor:
        rest = torch.tensor(
            [self.store.share, not self.complete, self._visited], dtype=torch.float64
        )
        return torch.cat([self.store.least_margins(self._closed).cpu(), rest])

    def conclude(self, meeting: Meeting) -> None:
        case, standings = self._context.case, meeting.standings
        least, visited = standings[:, :-3].amin(0), int(standings[:, -1].sum())
        self.open_share = float(standings[:, -3].sum())
        self.complete = not bool(standings[:, -2].any())
        margins = case.margins[self._numbers]
        case.margins[self._numbers] = torch.maximum(margins, least.to(margins))
        if self.complete and not meeting.waiting:
            case.open[self._numbers] = False
        elif self._pauses and self._trial.due(visited):
            stalls = self._trial.stalls(visited, -float(least.min()))
            self.stalled = stalls or meeting.waiting * self._bytes > self._most_bytes

    def _root(self) -> PlaneBoxes:
        rows = self._planes.rows
        row = torch.arange(len(self._specs.rows), device=rows.lower.device)
        whole = Interval(rows.lower[None], rows.upper[None])
        box = Interval(whole.lower.expand(len(row), -1), whole.upper.expand(len(row), -1))
        nothing = rows.lower.new_zeros((1, 0))
        return PlaneBoxes(
            lower=whole.lower,
            upper=whole.upper,
            margins=self._closed.new_full((1, len(self._numbers)), -torch.inf),
            depth=torch.zeros(1, dtype=torch.long, device=row.device),
            known_lower=nothing,
            known_upper=nothing,
            way=torch.full((1,), NO_WAY, dtype=torch.int8, device=row.device),
            row=torch.zeros(1, dtype=torch.long, device=row.device),
            multipliers=self._planes.first(box, row).packed()[None].to(torch.float16),
        )

    def _keep_open(self, boxes: PlaneBoxes, iterations: int) -> None:
        """Bounds boxes; stores those with a disjunct that no row of it excludes there."""
        self._context.checkpoint()
        with self._context.tag.kind(Memory.BOUNDS), torch.no_grad():
            box, row = boxes.open[:, self._specs.disjunct].nonzero().unbind(1)
            place = Interval(boxes.lower[box], boxes.upper[box])
            start = self._planes.unpacked(boxes.multipliers[box, row])
            found, multipliers = self._planes.bound(place, row, start, iterations)
            of_rows = found.new_full((len(boxes), len(self._specs.rows)), -torch.inf)
            of_rows[box, row] = found
            best = torch.full_like(boxes.margins, -torch.inf)
            at = self._specs.disjunct.expand(len(boxes), -1)
            best = best.scatter_reduce(1, at, of_rows, "amax")
            # A part holds less than the whole, so what was proved of that holds.
            margins = torch.maximum(boxes.margins, best)
            closed = boxes.open & (margins > 0)
            if self._context.workload is not None:
                closed = torch.zeros_like(closed)
            self._closed = torch.where(closed, margins, self._closed).amin(0).minimum(self._closed)
            packed = boxes.multipliers.clone()
            packed[box, row] = multipliers.packed().to(packed.dtype)
            margins = torch.where(closed, torch.inf, margins)
            others = self._specs.disjunct != margins.argmin(1)[:, None]
            nearest = of_rows.masked_fill(others, -torch.inf).argmax(1)
            boxes = replace(boxes, margins=margins, row=nearest, multipliers=packed)
            self.store.put(boxes.select(boxes.open.any(1)))
        self._visited += len(boxes)
        bound = float(self.store.least_margins(self._closed).min())
        deepest = int(boxes.depth.max())
        self._context.progress.round(len(boxes), deepest, len(self.store), bound)

    def _points(self, boxes: PlaneBoxes) -> Tensor:
        """Where each box's row is least [N, inputs], by its bound; in [-1, 1]."""
        of_box = torch.arange(len(boxes), device=boxes.row.device)
        return self._planes.unpacked(boxes.multipliers[of_box, boxes.row]).point

    def _gains(self, boxes: PlaneBoxes) -> Tensor:
        lost, moved = self._planes.swings(Interval(boxes.lower, boxes.upper), boxes.row)
        several = self._several[self._specs.disjunct[boxes.row]][:, None]
        return lost * (1 - AT_END * self._points(boxes).abs()) + moved * several

    def _halved(self, boxes: PlaneBoxes, at: Tensor) -> PlaneBoxes:
        """Where their rows were least stays the same point, if it is in the half."""
        both = halves(boxes, at)
        rising, falling, inputs = self._planes.sizes
        columns = slice(rising + falling * inputs, rising + falling * inputs + inputs)
        index = at.repeat(2)[:, None, None].expand(-1, both.multipliers.shape[1], 1)
        point = both.multipliers[:, :, columns]
        side = torch.ones(len(both), 1, 1, dtype=point.dtype, device=point.device)
        side[len(boxes) :] = -1.0
        moved = (2 * point.gather(2, index) + side).clamp(-1, 1)
        packed = both.multipliers.clone()
        packed[:, :, columns] = point.scatter(2, index, moved)
        return replace(both, multipliers=packed)

    def _attacked(self, boxes: PlaneBoxes) -> bool:
        """Whether points where the weakest boxes' rows are least lead to a counterexample."""
        if self._context.workload is not None:
            return False
        context, within = self._context, self._context.within
        boxes = boxes.select(boxes.worst.argsort(stable=True)[:SEEDS])
        centre, radius = Interval(boxes.lower, boxes.upper).ball
        x = within.lower.flatten(1).repeat(len(boxes), 1)
        x[:, self._planes.rows.inputs] = (centre + radius * self._points(boxes)).to(x)
        x = x.reshape(-1, *within.lower.shape[1:])
        x = torch.minimum(torch.maximum(x, within.lower), within.upper)
        disjunct = self._numbers[boxes.margins.argmin(1)]
        rows = self._seeds.of_domains(disjunct, x.dtype)
        return search(context, Seeds(x, disjunct, rows, self._seeds.limits[:, disjunct].to(x)))
