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
from runner.engine.search.clipped import left, proved_margin, share
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
# Of a piece of which no more than this is left, its bounds are not those that it was halved by.
AGAIN = 0.5

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
    """Bounds of parts of `roots` [C, *input], of one group at a time."""

    @property
    def roots(self) -> Interval: ...

    @property
    def groups(self) -> Tensor:
        """Of each root [C]."""
        ...

    def batch(self, group: int) -> int:
        """Parts that are bounded at once."""
        ...

    def rows(
        self, box: Interval, root: Tensor, rows: Tensor, of: Tensor, wanted: Tensor
    ) -> RowBounds:
        """Of rows [R, outputs], each over its box of [B, *input]: of [R]; root [B]: whose part each
        is.
        """
        ...


@dataclass(frozen=True)
class _ByForms:
    roots: Interval
    forms: BoxForms

    @property
    def groups(self) -> Tensor:
        return self.forms.sets

    def batch(self, group: int) -> int:
        return self.forms.batch(group)

    def rows(
        self, box: Interval, root: Tensor, rows: Tensor, of: Tensor, wanted: Tensor
    ) -> RowBounds:
        return self.forms.rows(box, root, rows, of, wanted)


@dataclass(frozen=True)
class _ByRows:
    roots: Interval
    propagator: BoxPropagator
    most: int

    @property
    def groups(self) -> Tensor:
        return torch.zeros(len(self.roots.lower), dtype=torch.long, device=self.roots.lower.device)

    def batch(self, group: int) -> int:
        return self.most

    def rows(
        self, box: Interval, root: Tensor, rows: Tensor, of: Tensor, wanted: Tensor
    ) -> RowBounds:
        found = self.propagator.rows(self.propagator.bound(box, {}), rows, of)
        # Boxes that rows are needed for are halved as they are.
        return replace(found, planes=None)


@dataclass(frozen=True)
class _Limits:
    """Pieces that a case may come to, and as long as none of them is excluded."""

    most: int
    without_success: int


class _Halving:
    """Of open cases, by bounds of one kind: all roots first, then of each group what is worst."""

    def __init__(
        self, cases: Sequence[CaseProgress], bounder: _Bounder, tag: Tagger, limits: _Limits
    ) -> None:
        self._cases, self._bounder, self._tag = cases, bounder, tag
        self._limits = limits
        self._shape = tuple(bounder.roots.lower.shape[1:])
        self._groups = bounder.groups
        count = int(self._groups.max()) + 1
        self._stores = [BoxStore[Pieces]() for _ in range(count)]
        with tag.kind(Memory.BOUNDS):
            self._rows = _Rows.of(cases)
            roots = _roots(cases, bounder.roots)
            self._waiting = roots.select(self._groups.argsort(stable=True))
            # Of every case and disjunct: the least margin of the pieces that exclude it, and of
            # those that were given up.
            self._closed = torch.full_like(self._waiting.margins, torch.inf)
            self._counts = torch.ones_like(self._waiting.case)
            self._excluded = torch.zeros_like(self._waiting.case)

    def run(self, ended: Callable[[], bool], told: Told) -> None:
        while (len(self._waiting) or any(map(len, self._stores))) and not ended():
            with self._tag.kind(Memory.BOUNDS):
                group, batch = self._next()
                self._stores[group].put(self._halved(*self._bounded(batch)))
            waiting = sum(map(len, self._stores)) + len(self._waiting)
            told(len(batch), int(batch.depth.max()), waiting, self._least())
        self._conclude()

    def _least(self) -> float:
        """The least margin of all that is closed, open or was not looked at yet."""
        least = self._least_at_rest()
        for store in self._stores:
            least = store.least_margins(least)
        return float(least.min())

    def _least_at_rest(self) -> Tensor:
        """Of each disjunct [disjuncts]: of all that is closed or was not looked at yet."""
        return torch.cat((self._closed, self._waiting.margins)).amin(0)

    def _next(self) -> tuple[int, Pieces]:
        """Of one group; roots first, so that there is a bound of all."""
        if not len(self._waiting):
            fullest = max(range(len(self._stores)), key=lambda group: len(self._stores[group]))
            return fullest, self._stores[fullest].take(self._bounder.batch(fullest))
        groups = self._groups[self._waiting.case]
        group = int(groups[0])
        count = min(self._bounder.batch(group), int((groups == group).sum()))
        batch = self._waiting.select(slice(0, count))
        self._waiting = self._waiting.select(slice(count, None))
        return group, batch

    def _bounded(self, pieces: Pieces) -> tuple[Pieces, Tensor, Tensor]:
        """What stays open; how steep its rows are by input [N, inputs], together; and whether so
        much of a piece was cut off that it had better be bounded again than halved [N].
        """
        of, row = self._rows.of_pieces(pieces)
        box = pieces.interval(self._shape)
        found = self._bounder.rows(
            box, pieces.case, self._rows.rows[row], of, self._rows.thresholds[row]
        )
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
        whole = pieces
        if found.planes is not None:
            planes = found.planes[still_open]
            pieces = self._clipped(pieces, of[still_open], planes, -above[still_open])
        smaller = share(pieces, whole) < AGAIN
        still = pieces.open.any(1)
        self._excluded.index_add_(0, pieces.case, (~still).long())
        return pieces.select(still), steep[still], smaller[still]

    def _clipped(self, pieces: Pieces, of: Tensor, planes: Tensor, missing: Tensor) -> Pieces:
        """Less what planes [R, inputs] below rows of open disjuncts prove, where one disjunct is
        open; each of a piece `of` [R], and by no more than `missing` [R] below its threshold.
        """
        alone = (pieces.open.sum(1) == 1)[of]
        of, planes, missing = of[alone], planes[alone], missing[alone]
        if not len(of):
            return pieces
        smaller = left(pieces, of, planes, missing)
        margin = torch.full_like(pieces.worst, torch.inf)
        margin = margin.scatter_reduce(0, of, proved_margin(missing), "amin")
        changed = ((smaller.lower > pieces.lower) | (smaller.upper < pieces.upper)).any(1)
        proved = pieces.open & changed.unsqueeze(1)
        self._note(pieces.case, torch.where(proved, margin.unsqueeze(1), torch.inf))
        return smaller

    def _halved(self, pieces: Pieces, steep: Tensor, again: Tensor) -> Pieces:
        """But for pieces of cases that have too many, or that no cut divides; and those that are to
        be bounded `again` [N] as they are.
        """
        possible = divisible(pieces)
        self._counts.index_add_(0, pieces.case, (~again).long())
        limits = self._limits
        most = torch.where(self._excluded > 0, limits.most, limits.without_success)
        going = possible.any(1) & (self._counts <= most)[pieces.case]
        gone = pieces.select(~going)
        self._note(gone.case, gone.margins)
        self._counts[gone.case] = limits.most + 1
        whole = pieces.select(going & again)
        going &= ~again
        pieces, steep, possible = pieces.select(going), steep[going], possible[going]
        gain = steep.nan_to_num(posinf=torch.finfo(steep.dtype).max) * (pieces.upper - pieces.lower)
        gain = gain + FLAT * gain.amax(1, keepdim=True) + (pieces.upper - pieces.lower) * FLAT
        halved = halves(pieces, torch.where(possible, gain, -1.0).argmax(1))
        return halved.joined([halved, whole])

    def _note(self, case: Tensor, margins: Tensor) -> None:
        """Margins [N, disjuncts] of pieces that go no further."""
        index = case[:, None].expand(-1, margins.shape[1])
        self._closed.scatter_reduce_(0, index, margins, "amin")

    def _conclude(self) -> None:
        self._note(self._waiting.case, self._waiting.margins)
        for store in self._stores:
            while len(store):
                rest = store.take(len(store))
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
