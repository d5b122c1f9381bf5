"""Bounds of every case and disjunct, from the cheapest method to the tightest one asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from runner.bounds.interval import Interval
from runner.bounds.network import BoundNetwork
from runner.bounds.propagate import NetworkBounds, Propagator, Settings
from runner.bounds.rows import Rows
from runner.bounds.tagging import Tagger
from runner.property.model import Property
from runner.verify.attack import Target
from runner.verify.specs import Specs, box_around
from runner.vocabulary import BOUNDS, Method

# Margins within this many units of rounding of the largest value are computed again in float64.
ROUNDING_UNITS = 64


def ladder(tightest: Method) -> tuple[Method, ...]:
    """The bounds up to `tightest`, cheapest first; all of them for a complete verification."""
    return BOUNDS if tightest is Method.COMPLETE else BOUNDS[: BOUNDS.index(tightest) + 1]


@dataclass
class CaseProgress:
    """What is proved of one case: the best margin [disjuncts] and which disjuncts are open."""

    box: Interval
    specs: Specs
    margins: Tensor
    open: Tensor
    known: NetworkBounds | None = field(default=None)

    @property
    def bound(self) -> float:
        """The least margin: the case is excluded when it is positive."""
        return float(self.margins.min()) if len(self.margins) else math.inf


@dataclass(frozen=True)
class OpenCase:
    """What a branch and bound goes on with: case `number` of the property, over a network."""

    network: BoundNetwork
    settings: Settings
    number: int
    progress: CaseProgress

    @property
    def free_inputs(self) -> int:
        """Inputs that may take more than one value."""
        return int((self.progress.box.lower < self.progress.box.upper).sum())


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
    ) -> None:
        self._network = network
        self._settings = settings
        self._tag = tag
        self._checkpoint = checkpoint
        self._rows = rows
        self.method = Method.IBP
        self._done: set[Method] = set()
        self.cases: list[CaseProgress] = []
        for case in instance.cases:
            specs = Specs.of(case, device)
            nothing = torch.full((specs.disjuncts,), -torch.inf, dtype=torch.float64, device=device)
            everything = torch.ones(specs.disjuncts, dtype=torch.bool, device=device)
            box = box_around(case, network.graph.input.shape, device)
            self.cases.append(CaseProgress(box, specs, nothing, everything))

    def run(self, tightest: Method) -> None:
        """Climbs the ladder, from where it stands, until nothing is open or `tightest` is done."""
        for method in ladder(tightest):
            if method in self._done:
                continue
            self._done.add(method)
            for case in self.cases:
                if bool(case.open.any()):
                    self.method = method
                    self._bound(case, method)

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
            OpenCase(self._network, self._settings, number, case)
            for number, case in enumerate(self.cases)
            if bool(case.open.any())
        ]

    @property
    def lower_bound(self) -> float:
        """The least margin over all cases and disjuncts; inf when nothing is unsafe."""
        return min((case.bound for case in self.cases), default=math.inf)

    def _bound(self, case: CaseProgress, method: Method) -> None:
        margins, slack = self._margins(case, method, torch.float32)
        doubtful = (margins > 0) & (margins <= slack) & case.open
        proved = (margins > slack) & case.open
        if bool(doubtful.any()):
            # Too near to the threshold for float32: the whole method again in float64.
            exact, slack = self._margins(case, method, torch.float64)
            margins = torch.where(doubtful, exact, margins)
            proved |= doubtful & (exact > slack)
        # fmax: bounds that overflowed (not a number) say nothing.
        case.margins = torch.where(case.open, torch.fmax(case.margins, margins), case.margins)
        case.open = case.open & ~proved

    def _margins(
        self, case: CaseProgress, method: Method, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Margins of the open disjuncts and the rounding they may hide, [disjuncts], float64."""
        settings = replace(self._settings, method=method)
        propagator = Propagator(self._network, settings, self._tag, self._checkpoint, self._rows)
        known = case.known if dtype is torch.float32 else None
        bounds = propagator.bound(case.box.to(dtype), known)
        if dtype is torch.float32:
            case.known = bounds
        specs = case.specs.select(case.open)
        found = self._spec_bounds(propagator, bounds, specs, dtype)
        # Values that cancel later leave their rounding behind: the largest of any node counts.
        ends = [end for i in bounds.intervals.values() for end in (i.lower, i.upper)]
        largest = torch.stack([end.abs().max() for end in ends]).max().double()
        scale = specs.rows.abs().sum(1) * largest + specs.thresholds.abs()
        slack = specs.margins(scale + specs.thresholds) * torch.finfo(dtype).eps * ROUNDING_UNITS
        return specs.margins(found.double()), slack

    def _spec_bounds(
        self, propagator: Propagator, bounds: NetworkBounds, specs: Specs, dtype: torch.dtype
    ) -> Tensor:
        """Lower bounds [S], in blocks of whole disjuncts so that each can stop when it is done."""
        parts = []
        for block in _blocks(specs, self._settings.row_block):

            def enough(best: Tensor, block: Specs = block) -> bool:
                margins = block.margins(best[:, 0].double())[block.disjunct]
                return bool((margins > 0).all())

            parts.append(propagator.spec_bounds(bounds, block.rows.to(dtype), enough)[:, 0])
        return torch.cat(parts) if parts else specs.thresholds.new_zeros(0).to(dtype)


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
