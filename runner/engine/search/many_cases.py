"""Properties of many boxes: all of them bounded at once, each with rows of its own.

One box after the other costs the calls of a whole pass each; a batch of boxes costs them once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from runner.contract.vocabulary import Memory
from runner.engine.bounds.boxes import BoxPropagator, batch_boxes
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.tagging import Tagger
from runner.engine.search.cases import CaseProgress

# Of fewer, each is bounded by itself: the driver's blocks of rows suit one box.
MANY = 8


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
    propagator = BoxPropagator(network, tag, checkpoint, settings.interval_only, settings.budget)
    waiting = [case for case in cases if bool(case.open.any())]
    size = batch_boxes(network.graph, settings.budget)
    for first in range(0, len(waiting), size):
        _bound_batch(propagator, waiting[first : first + size], tag)


def _bound_batch(propagator: BoxPropagator, cases: Sequence[CaseProgress], tag: Tagger) -> None:
    with tag.kind(Memory.BOUNDS):
        box = Interval(
            torch.cat([case.box.lower for case in cases]),
            torch.cat([case.box.upper for case in cases]),
        )
        specs = [case.specs for case in cases]
        rows = torch.cat([some.rows for some in specs])
        counts = torch.tensor([len(some.rows) for some in specs], device=rows.device)
        of_box = torch.arange(len(cases), device=rows.device).repeat_interleave(counts)
        # Disjuncts of all cases are counted on.
        disjuncts = torch.tensor([some.disjuncts for some in specs], device=rows.device)
        first = disjuncts.cumsum(0) - disjuncts
        disjunct = torch.cat([some.disjunct for some in specs]) + first[of_box]
    lower = propagator.rows(propagator.bound(box, {}), rows, of_box).lower
    above = lower - torch.cat([some.thresholds for some in specs])
    found = above.new_full((int(disjuncts.sum()),), -torch.inf)
    found = found.scatter_reduce(0, disjunct, above.nan_to_num(nan=-torch.inf), "amax")
    open_ = torch.cat([case.open for case in cases])
    known = torch.cat([case.margins for case in cases])
    margins = torch.where(open_, torch.fmax(known, found), known)
    still = open_ & ~(found > 0)
    each = disjuncts.tolist()
    parts = zip(cases, margins.split(each), still.split(each), strict=True)
    for case, of_case, open_of_case in parts:
        case.margins, case.open = of_case, open_of_case
