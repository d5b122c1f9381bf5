"""ReLU splits, begun anew with tighter bounds of neurons whenever they stall."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from runner.engine.bounds.refinement import Depth
from runner.engine.search.relu_split import ReluSplit, ReluSplitSettings
from runner.engine.search.search import SearchContext, SearchEnd

# Of the trees, before one attempt after another.
DEPTHS = (Depth(128, trial=4), Depth(512, trial=0))
# Of what the root missed, what may be left for the search to begin anew, and for deeper trees.
ANEW, DEEPER = 0.95, 0.8
# Domains after which the first attempt may stall: trees of neurons take less time than many.
TRIAL = 300


class Deepening:
    """A `Search`: ReLU splits, and trees of neurons before they begin anew."""

    name = ReluSplit.name
    gains = False

    def __init__(
        self, context: SearchContext, depths: Sequence[Depth] = DEPTHS, trial: int = TRIAL
    ) -> None:
        self._context = context
        self._depths = list(depths)
        self._root_missed = self._missed
        self._search = ReluSplit(context, ReluSplitSettings(trial=trial), stalls=bool(depths))

    @property
    def open_share(self) -> float:
        return self._search.open_share

    def run(self) -> SearchEnd:
        """Goes on after a pause. May raise DeadlineReached."""
        while True:
            end = self._search.run()
            if end is not SearchEnd.PAUSED or not self._search.stalled:
                return end
            left = self._deepened(self._depths.pop(0))
            if not bool(self._context.case.open.any()):
                return SearchEnd.PROVED
            if left > DEEPER:
                self._depths.clear()
            if left <= ANEW:
                self._search = ReluSplit(self._context, stalls=bool(self._depths))
            elif not self._depths:
                self._search.go_on()

    @property
    def _missed(self) -> float:
        """By how much the weakest open disjunct misses its threshold."""
        case = self._context.case
        return -float(case.margins[case.open].min())

    def _deepened(self, depth: Depth) -> float:
        """Of what the root missed, what it misses with the neurons' new bounds."""
        case, before = self._context.case, self._root_missed
        margins = case.margins
        case.margins = torch.where(case.open, -torch.inf, margins)
        try:
            grown = self._context.deepen(depth)
            # Where trees were not worth it, deeper ones are not either.
            self._depths = [later._replace(within=grown) for later in self._depths if grown]
            self._root_missed = self._missed if bool(case.open.any()) else 0.0
        finally:
            # What the search has proved of its own holds as well.
            case.margins = torch.fmax(case.margins, margins)
        return self._root_missed / before if before > 0 else math.inf
