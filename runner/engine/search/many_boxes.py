"""Properties of many boxes: bounded in batches, each box with rows of its own, and halved so.

One box after the other costs the calls of a whole pass each; a batch of boxes costs them once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.boxes import BoxPropagator, batch_boxes
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.tagging import Tagger
from runner.engine.search.box_store import Boxes, BoxStore, divisible, halves
from runner.engine.search.cases import CaseProgress
from runner.engine.search.cuts import NO_WAY

# Of fewer, each is bounded by itself: the driver's blocks of rows suit one box.
MANY = 8
# Pieces that one case may come to: what needs more is better searched by itself, with all that a
# search does for one box.
MOST_PIECES = 256
# Of the steepest input's part, which an input without any has: one that no bound depends on yet is
# cut where all are such.
FLAT = 1e-6

# Boxes bounded, the most splits above one, how many are open, and the least margin.
Told = Callable[[int, int, int, float], None]


@dataclass(frozen=True)
class Pieces(Boxes):
    """Parts of the boxes of several cases: `case` [N]. Margins are inf beyond its disjuncts."""

    case: Tensor


def are_many(cases: int, without: AbstractSet[EnginePart]) -> bool:
    """Whether so many open cases are bounded together, and not each by itself."""
    return EnginePart.TOGETHER not in without and cases >= MANY


def bound_together(
    network: BoundNetwork,
    cases: Sequence[CaseProgress],
    settings: Settings,
    tag: Tagger,
    checkpoint: Callable[[], None],
) -> None:
    """CROWN of all cases with an open disjunct, in batches; closes what it proves. All ranks do the
    same. `checkpoint` may raise between passes.
    """
    ManyBoxes(network, cases, settings, tag, checkpoint, most_pieces=1).run()


class ManyBoxes:
    """All cases with an open disjunct, whose boxes have one shape and precision. All ranks do the
    same. `checkpoint` may raise between passes.
    """

    name = "input-split"

    def __init__(
        self,
        network: BoundNetwork,
        cases: Sequence[CaseProgress],
        settings: Settings,
        tag: Tagger,
        checkpoint: Callable[[], None],
        most_pieces: int = MOST_PIECES,
    ) -> None:
        self._shape = network.graph.input.shape
        self._tag = tag
        self._most_pieces = most_pieces
        self._propagator = BoxPropagator(
            network, tag, checkpoint, settings.interval_only, settings.budget, settings.without
        )
        self._batch = batch_boxes(network.graph, settings.budget)
        self._cases = [case for case in cases if bool(case.open.any())]
        self._store = BoxStore[Pieces]()
        if not self._cases:
            return
        with tag.kind(Memory.BOUNDS):
            self._rows = _Rows.of(self._cases)
            roots = _roots(self._cases)
            # Of every case and disjunct: the least margin of the pieces that exclude it, and of
            # those that were given up.
            self._closed = torch.full_like(roots.margins, torch.inf)
            self._counts = torch.ones_like(roots.case)
            self._store.put(roots)

    def run(
        self,
        ended: Callable[[], bool] = lambda: False,
        told: Told = lambda bounded, depth, waiting, bound: None,
    ) -> None:
        """Until each piece is excluded or given up, or `ended`, which is asked between batches, the
        same on all ranks. What is proved of a case is in its margins then.
        """
        if not self._cases:
            return
        while len(self._store) and not ended():
            with self._tag.kind(Memory.BOUNDS):
                batch = self._store.take(self._batch)
                self._store.put(self._halved(*self._bounded(batch)))
            bound = float(self._store.least_margins(self._closed.amin(0)).min())
            told(len(batch), int(batch.depth.max()), len(self._store), bound)
        self._conclude()

    def _bounded(self, pieces: Pieces) -> tuple[Pieces, Tensor]:
        """What stays open, and how steep its rows are by input [N, inputs], together."""
        of, row = self._rows.of_pieces(pieces)
        bounds = self._propagator.bound(pieces.interval(self._shape), {})
        found = self._propagator.rows(bounds, self._rows.rows[row], of)
        above = (found.lower - self._rows.thresholds[row]).nan_to_num(nan=-torch.inf)
        disjunct = self._rows.disjunct[row]
        width = pieces.margins.shape[1]
        best = above.new_full((len(pieces) * width,), -torch.inf)
        best = best.scatter_reduce(0, of * width + disjunct, above, "amax").reshape(-1, width)
        margins = torch.where(pieces.open, torch.maximum(best, pieces.margins), torch.inf)
        closed = pieces.open & (margins > 0)
        self._note(pieces.case, torch.where(closed, margins, torch.inf))
        pieces = replace(pieces, margins=torch.where(closed, torch.inf, margins))
        steep = found.coefficients.new_zeros((len(pieces), found.coefficients.shape[1]))
        still_open = pieces.open[of, disjunct]
        steep.index_add_(0, of[still_open], found.coefficients[still_open].abs())
        still = pieces.open.any(1)
        return pieces.select(still), steep[still]

    def _halved(self, pieces: Pieces, steep: Tensor) -> Pieces:
        """But for pieces of cases that have too many, or that no cut divides."""
        possible = divisible(pieces)
        self._counts.index_add_(0, pieces.case, torch.ones_like(pieces.case))
        going = possible.any(1) & (self._counts[pieces.case] <= self._most_pieces)
        gone = pieces.select(~going)
        self._note(gone.case, gone.margins)
        self._counts[gone.case] = self._most_pieces
        pieces, steep, possible = pieces.select(going), steep[going], possible[going]
        gain = steep.nan_to_num(posinf=torch.finfo(steep.dtype).max) * (pieces.upper - pieces.lower)
        gain = gain + FLAT * gain.amax(1, keepdim=True) + (pieces.upper - pieces.lower) * FLAT
        return halves(pieces, torch.where(possible, gain, -1.0).argmax(1))

    def _note(self, case: Tensor, margins: Tensor) -> None:
        """Margins [N, disjuncts] of pieces that go no further."""
        index = case[:, None].expand(-1, margins.shape[1])
        self._closed.scatter_reduce_(0, index, margins, "amin")

    def _conclude(self) -> None:
        while len(self._store):
            rest = self._store.take(self._batch)
            self._note(rest.case, rest.margins)
        for case, margins in zip(self._cases, self._closed, strict=True):
            found = margins[: len(case.open)]
            case.margins = torch.where(case.open, torch.fmax(case.margins, found), case.margins)
            case.open = case.open & ~(found > 0)


@dataclass(frozen=True)
class _Rows:
    """Of all cases behind each other: rows [S, outputs], thresholds and disjuncts [S], counted
    anew in each case; of every case [C] the first row and how many there are.
    """

    rows: Tensor
    thresholds: Tensor
    disjunct: Tensor
    first: Tensor
    count: Tensor

    @staticmethod
    def of(cases: Sequence[CaseProgress]) -> _Rows:
        specs = [case.specs for case in cases]
        rows = torch.cat([some.rows for some in specs])
        count = torch.tensor([len(some.rows) for some in specs], device=rows.device)
        thresholds = torch.cat([some.thresholds for some in specs])
        disjunct = torch.cat([some.disjunct for some in specs])
        return _Rows(rows, thresholds, disjunct, count.cumsum(0) - count, count)

    def of_pieces(self, pieces: Pieces) -> tuple[Tensor, Tensor]:
        """Of the open disjuncts of each piece, its number and the number of the row, [R] each."""
        count = self.count[pieces.case]
        of = torch.arange(len(pieces), device=count.device).repeat_interleave(count)
        before = (count.cumsum(0) - count)[of]
        row = self.first[pieces.case[of]] + torch.arange(len(of), device=count.device) - before
        wanted = pieces.open[of, self.disjunct[row]]
        return of[wanted], row[wanted]


def _roots(cases: Sequence[CaseProgress]) -> Pieces:
    """The box of every case."""
    lower = torch.cat([case.box.lower.flatten(1) for case in cases])
    upper = torch.cat([case.box.upper.flatten(1) for case in cases])
    width = max(len(case.open) for case in cases)
    margins = cases[0].margins.new_full((len(cases), width), torch.inf)
    for number, case in enumerate(cases):
        margins[number, : len(case.open)] = torch.where(case.open, case.margins, torch.inf)
    count, device = len(cases), lower.device
    return Pieces(
        lower=lower,
        upper=upper,
        margins=margins,
        depth=torch.zeros(count, dtype=torch.long, device=device),
        known_lower=lower.new_zeros((count, 0)),
        known_upper=lower.new_zeros((count, 0)),
        way=torch.full((count,), NO_WAY, dtype=torch.int8, device=device),
        case=torch.arange(count, device=device),
    )
