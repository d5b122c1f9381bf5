"""Properties of many boxes: bounded in batches, each box with rows of its own, and halved so.

One box after the other costs the calls of a whole pass each; a batch of boxes costs them once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.box_forms import BoxForms, most_columns
from runner.engine.bounds.boxes import BoxPropagator, RowBounds, batch_boxes
from runner.engine.bounds.interval import Interval
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
# As many more by forms, which are quicker, but looser, where they exclude some; and the free inputs
# of a box that forms are quick with.
FORM_PIECES = 32
FORM_INPUTS = 20
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
    roots: Interval,
) -> None:
    """Forms and CROWN of all cases with an open disjunct, in batches; closes what they prove. All
    ranks do the same. `checkpoint` may raise between passes. `roots`: as of ManyBoxes.
    """
    ManyBoxes(network, cases, settings, tag, checkpoint, roots, most_pieces=1).run()


class ManyBoxes:
    """All cases with an open disjunct, whose boxes have one shape and precision. All ranks do the
    same. `checkpoint` may raise between passes. `roots`: their boxes [cases, *input] in float64, as
    tight as it has them.
    """

    name = "input-split"

    def __init__(
        self,
        network: BoundNetwork,
        cases: Sequence[CaseProgress],
        settings: Settings,
        tag: Tagger,
        checkpoint: Callable[[], None],
        roots: Interval | None = None,
        most_pieces: int = MOST_PIECES,
    ) -> None:
        self._network, self._settings = network, settings
        self._tag, self._checkpoint = tag, checkpoint
        self._cases, self._roots, self._most_pieces = cases, roots, most_pieces

    def run(
        self,
        ended: Callable[[], bool] = lambda: False,
        told: Told = lambda bounded, depth, waiting, bound: None,
    ) -> None:
        """Until each piece is excluded or given up, or `ended`, which is asked between batches, the
        same on all ranks. What is proved of a case is in its margins then. By forms first, which
        are quick, and by rows what those leave open.
        """
        for make, times in ((self._forms, FORM_PIECES), (self._by_rows, 1)):
            still = [number for number, case in enumerate(self._cases) if bool(case.open.any())]
            bounder = make(still) if still and not ended() else None
            if bounder is not None:
                chosen = [self._cases[number] for number in still]
                most = self._most_pieces if self._most_pieces == 1 else times * self._most_pieces
                limits = _Limits(most, self._most_pieces)
                _Halving(chosen, bounder, self._tag, limits).run(ended, told)

    def _forms(self, numbers: Sequence[int]) -> _Bounder | None:
        """None where boxes have too many free inputs for it, or no forms are wanted."""
        if self._roots is None or EnginePart.FORWARD in self._settings.without:
            return None
        roots = Interval(self._roots.lower[numbers], self._roots.upper[numbers])
        if most_columns(roots) > FORM_INPUTS:
            return None
        return _ByForms(
            roots,
            BoxForms(self._network, roots, self._tag, self._checkpoint, self._settings.budget),
        )

    def _by_rows(self, numbers: Sequence[int]) -> _Bounder:
        settings, boxes = self._settings, [self._cases[number].box for number in numbers]
        return _ByRows(
            Interval.joined(boxes),
            BoxPropagator(
                self._network,
                self._tag,
                self._checkpoint,
                settings.interval_only,
                settings.budget,
                settings.without,
            ),
            batch_boxes(self._network.graph, settings.budget),
        )


class _Bounder(Protocol):
    """Bounds of parts of `roots` [C, *input], `batch` of them at a time."""

    @property
    def roots(self) -> Interval: ...

    @property
    def batch(self) -> int: ...

    def rows(self, box: Interval, root: Tensor, rows: Tensor, of: Tensor) -> RowBounds:
        """Of rows [R, outputs], each over its box of [B, *input]: of [R]; root [B]: whose part each
        is.
        """
        ...


@dataclass(frozen=True)
class _ByForms:
    roots: Interval
    forms: BoxForms

    @property
    def batch(self) -> int:
        return self.forms.batch

    def rows(self, box: Interval, root: Tensor, rows: Tensor, of: Tensor) -> RowBounds:
        return self.forms.rows(box, root, rows, of)


@dataclass(frozen=True)
class _ByRows:
    roots: Interval
    propagator: BoxPropagator
    batch: int

    def rows(self, box: Interval, root: Tensor, rows: Tensor, of: Tensor) -> RowBounds:
        return self.propagator.rows(self.propagator.bound(box, {}), rows, of)


@dataclass(frozen=True)
class _Limits:
    """Pieces that a case may come to, and as long as none of them is excluded."""

    most: int
    without_success: int


class _Halving:
    """Of open cases, by bounds of one kind: all roots first, then whatever is worst."""

    def __init__(
        self, cases: Sequence[CaseProgress], bounder: _Bounder, tag: Tagger, limits: _Limits
    ) -> None:
        self._cases, self._bounder, self._tag = cases, bounder, tag
        self._limits = limits
        self._shape = tuple(bounder.roots.lower.shape[1:])
        self._store = BoxStore[Pieces]()
        with tag.kind(Memory.BOUNDS):
            self._rows = _Rows.of(cases)
            self._waiting = _roots(cases, bounder.roots)
            # Of every case and disjunct: the least margin of the pieces that exclude it, and of
            # those that were given up.
            self._closed = torch.full_like(self._waiting.margins, torch.inf)
            self._counts = torch.ones_like(self._waiting.case)
            self._excluded = torch.zeros_like(self._waiting.case)

    def run(self, ended: Callable[[], bool], told: Told) -> None:
        while (len(self._waiting) or len(self._store)) and not ended():
            with self._tag.kind(Memory.BOUNDS):
                batch = self._next()
                self._store.put(self._halved(*self._bounded(batch)))
            bound = float(self._store.least_margins(self._least_at_rest()).min())
            told(len(batch), int(batch.depth.max()), len(self._store) + len(self._waiting), bound)
        self._conclude()

    def _least_at_rest(self) -> Tensor:
        """Of each disjunct [disjuncts]: of all that is closed or was not looked at yet."""
        return torch.cat((self._closed, self._waiting.margins)).amin(0)

    def _next(self) -> Pieces:
        """Roots first, so that there is a bound of all."""
        count = self._bounder.batch
        if not len(self._waiting):
            return self._store.take(count)
        batch = self._waiting.select(slice(0, count))
        self._waiting = self._waiting.select(slice(count, None))
        return batch

    def _bounded(self, pieces: Pieces) -> tuple[Pieces, Tensor]:
        """What stays open, and how steep its rows are by input [N, inputs], together."""
        of, row = self._rows.of_pieces(pieces)
        box = pieces.interval(self._shape)
        found = self._bounder.rows(box, pieces.case, self._rows.rows[row], of)
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
        self._excluded.index_add_(0, pieces.case, (~still).long())
        return pieces.select(still), steep[still]

    def _halved(self, pieces: Pieces, steep: Tensor) -> Pieces:
        """But for pieces of cases that have too many, or that no cut divides."""
        possible = divisible(pieces)
        self._counts.index_add_(0, pieces.case, torch.ones_like(pieces.case))
        limits = self._limits
        most = torch.where(self._excluded > 0, limits.most, limits.without_success)
        going = possible.any(1) & (self._counts <= most)[pieces.case]
        gone = pieces.select(~going)
        self._note(gone.case, gone.margins)
        self._counts[gone.case] = limits.most + 1
        pieces, steep, possible = pieces.select(going), steep[going], possible[going]
        gain = steep.nan_to_num(posinf=torch.finfo(steep.dtype).max) * (pieces.upper - pieces.lower)
        gain = gain + FLAT * gain.amax(1, keepdim=True) + (pieces.upper - pieces.lower) * FLAT
        return halves(pieces, torch.where(possible, gain, -1.0).argmax(1))

    def _note(self, case: Tensor, margins: Tensor) -> None:
        """Margins [N, disjuncts] of pieces that go no further."""
        index = case[:, None].expand(-1, margins.shape[1])
        self._closed.scatter_reduce_(0, index, margins, "amin")

    def _conclude(self) -> None:
        self._note(self._waiting.case, self._waiting.margins)
        while len(self._store):
            rest = self._store.take(self._bounder.batch)
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


def _roots(cases: Sequence[CaseProgress], boxes: Interval) -> Pieces:
    """The box [cases, *input] of every case."""
    lower, upper = boxes.lower.flatten(1), boxes.upper.flatten(1)
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
