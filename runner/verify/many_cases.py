"""Properties of many boxes: all of them bounded at once, each with rows of its own.

One box after the other costs the calls of a whole pass each; a batch of boxes costs them once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from runner.bounds.boxes import BoxPropagator, batch_boxes
from runner.bounds.interval import Interval
from runner.bounds.network import BoundNetwork
from runner.bounds.propagate import Settings
from runner.bounds.tagging import Tagger
from runner.verify.cases import CaseProgress
from runner.vocabulary import Memory

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
        lower, upper = (
            torch.cat([getattr(case.box, side) for case in cases]) for side in ("lower", "upper")
        )
        specs = [case.specs.select(case.open) for case in cases]
        rows = torch.cat([some.rows for some in specs])
        counts = torch.tensor([len(some.rows) for some in specs])
        box = torch.arange(len(cases)).repeat_interleave(counts).to(rows.device)
    bounds = propagator.bound(Interval(lower, upper), {})
    found = propagator.rows(bounds, rows, box).lower.split(counts.tolist())
    for case, some, lowest in zip(cases, specs, found, strict=True):
        margins = some.margins(lowest)
        case.margins = torch.where(case.open, torch.fmax(case.margins, margins), case.margins)
        case.open = case.open & ~(margins > 0)
