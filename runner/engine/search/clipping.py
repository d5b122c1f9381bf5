"""Sub-domains of a ReLU split, tightened where their own bounds leave a half space open."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart
from runner.engine.bounds.beta import SplitBounds
from runner.engine.bounds.clips import FINE, Forms, HalfSpaces
from runner.engine.bounds.subdomains import Inspection, Subdomains
from runner.engine.search.branching import Inspected
from runner.engine.search.domains import Domains
from runner.engine.search.search import SearchContext
from runner.engine.search.split_root import SplitRoot
from runner.engine.specs import exact_in

# What forms may take, in bytes; of a core.
FORM_BYTES = 64 * 1024 * 1024
# Of what a row's bound spans over the box: what it may miss by. Where it is more, too much of the
# box is left.
NEAR = 0.5
# Neurons of a sub-domain whose bounds are looked at: those that its bound depends on most.
MOST_NEURONS = 64
# Of what domains miss, what clips must have taken on average for the next batch to be clipped, too;
# otherwise every so many batches are, as deeper ones may gain.
GAIN, EVERY = 0.08, 8
# Of that average, what the last batch counts for.
LAST = 0.5


class Clipping:
    """Of one search; the forms are made when they are first needed."""

    def __init__(self, context: SearchContext, root: SplitRoot) -> None:
        self._context = context
        self._root = root
        self._gain, self._skipped = 1.0, 0

    @property
    def due(self) -> bool:
        """Whether to clip the next batch; to be asked once for each."""
        if not self.possible:
            return False
        pays = self._gain >= GAIN
        self._skipped = 0 if pays or self._skipped + 1 == EVERY else self._skipped + 1
        return not self._skipped

    def gained(self, before: Tensor, after: Tensor) -> None:
        """What domains of a batch missed [B], and miss now; nothing where it is not positive."""
        missed = before > 0
        if bool(missed.any()):
            gains = 1 - after[missed].clamp(min=0) / before[missed]
            self._gain += LAST * (float(gains.nan_to_num(0.0).clamp(0, 1).mean()) - self._gain)

    @cached_property
    def possible(self) -> bool:
        """Whether there is something to clip, and bounds of the search's precision prove it."""
        root = self._root
        exact = exact_in(root.dtype, root.rows.rows)
        left_out = EnginePart.CLIPS in self._context.settings.without
        return exact and not left_out and self._forms is not None and bool(self._forms)

    @cached_property
    def _forms(self) -> Forms | None:
        context, bounds = self._context, self._root.bounds
        if not isinstance(bounds, SplitBounds):
            return None
        return Forms(
            context.network,
            bounds.space,
            bounds.intervals,
            context.tag,
            context.checkpoint,
            context.settings.budget.scaled(FORM_BYTES),
        )

    def seen(self, domains: Subdomains) -> Inspection:
        """With bounds that are proved."""
        bounds = self._root.bounds
        if not isinstance(bounds, SplitBounds):
            raise TypeError("where more than ReLUs is split, nothing is clipped")
        return bounds.inspect(domains, proven=True)

    def clipped(self, domains: Domains, inspected: Inspected) -> Domains | None:
        """With the limits that hold where the disjuncts may be unsafe, None where none is near.
        Limits that cross say that a sub-domain is safe.
        """
        found = self.half_spaces(domains, inspected.seen)
        if found is None or self._forms is None:
            return None
        near, spaces = found
        limits = self._forms.clipped(
            spaces, domains.select(near).before, inspected.scores()[near], MOST_NEURONS
        )
        return replace(
            domains,
            lower=domains.lower.index_copy(0, near, limits.lower),
            upper=domains.upper.index_copy(0, near, limits.upper),
            ceiling=domains.ceiling.index_fill(0, near, 0.0),
        )

    def half_spaces(self, domains: Domains, seen: Inspection) -> tuple[Tensor, HalfSpaces] | None:
        """Those [n] of which little is left, and that: where the row nearest to its threshold is
        not proved.
        """
        context, rows = self._context, self._root.rows
        thresholds = rows.thresholds[:, domains.disjunct]
        missed, nearest = (thresholds - seen.bounds.double()).min(0)
        batch = torch.arange(len(domains), device=nearest.device)
        own = seen.inputs[nearest, batch].unsqueeze(1)
        name = context.network.graph.input.name
        slopes = context.network.features.whole(name, own).flatten(1)
        box = self._root.bounds.intervals[name]
        spans = slopes.abs() @ (box.upper - box.lower).flatten()
        near = ((missed > 0) & (missed < NEAR * spans)).nonzero()[:, 0]
        if not len(near):
            return None
        limits = thresholds - seen.constant
        limits = limits + (thresholds.abs() + seen.constant.abs()) * FINE  # rounded up
        return near, HalfSpaces(slopes[near], limits[nearest, batch][near])
