"""Lower bounds of rows by CROWN or α-CROWN, in two steps: slopes are searched, then proved.

The search is in the network's own precision and charges no rounding. What it comes to goes back
once more in the precision of the bounds, and is charged, so that it holds in real arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory, Method
from runner.engine.bounds.alpha import optimized_slopes
from runner.engine.bounds.backward import (
    Frontier,
    Shortcut,
    WholeCharges,
    advance,
    concretize,
)
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.refinement import Finished
from runner.engine.bounds.rounding import LEDGER
from runner.engine.bounds.tagging import Tagger


@dataclass(frozen=True)
class ProvedRows:
    """Of one network. `checkpoint` is called before rows and between iterations; it may raise.
    `finished`: as of `Rows`.
    """

    network: BoundNetwork
    settings: Settings
    tag: Tagger
    checkpoint: Callable[[], None]
    finished: Finished

    def bound(
        self,
        start: Callable[[torch.dtype], Frontier],
        bounds: NetworkBounds,
        method: Method,
        enough: Callable[[Tensor], bool] | None = None,
    ) -> Tensor:
        """Lower bounds [S, B] of the rows that `start` gives in any precision: α is searched in the
        network's, and what it comes to is proved in that of the bounds. `enough` may end the search
        early, given the best bounds so far.
        """
        self.checkpoint()
        slopes: dict[str, Tensor] = {}
        if method is Method.ALPHA_CROWN:

            def stop(best: Tensor) -> bool:
                self.checkpoint()
                return enough is not None and enough(best)

            slopes = optimized_slopes(
                self.network,
                start(self.network.dtype),
                bounds.searching,
                bounds.unstable,
                bounds.box.nearest(self.network.dtype),
                self.settings.alpha,
                self.tag,
                stop,
                self.finished,
                relus_alone=EnginePart.PARAMETERS in self.settings.without,
            )
        whole = start(bounds.dtype)
        count = whole.constant.shape[0]
        # Rows of higher precision take more room.
        parts = min(count, 1 if bounds.dtype is self.network.dtype else 2)
        ends = [count * part // max(1, parts) for part in range(parts + 1)]
        found = [self._proved(whole, slopes, bounds, slice(*ends_)) for ends_ in pairwise(ends)]
        return torch.cat(found) if found else whole.constant.to(bounds.dtype)

    def _proved(
        self, start: Frontier, slopes: dict[str, Tensor], bounds: NetworkBounds, rows: slice
    ) -> Tensor:
        """Of some rows, what their slopes (CROWN's, where there are none) prove."""
        with torch.no_grad(), self.tag.kind(Memory.A):
            chosen = {
                name: slope[rows].to(LEDGER if name in bounds.fine else bounds.dtype)
                for name, slope in slopes.items()
            }
            part = Frontier(
                {name: A[rows] for name, A in start.pending.items()},
                start.constant[rows],
                start.todo,
                None if start.error is None else start.error[rows],
            )
            if isinstance(self.network, Shortcut) and not chosen and not bounds.fine:
                done = self.network.back(part, bounds.lines, bounds.intervals)
            else:
                charges = WholeCharges(self.network, bounds.intervals)
                done = advance(self.network, part, bounds.lines, chosen, charges, fine=bounds.fine)
            return concretize(self.network, done, bounds.box, charge=True)
