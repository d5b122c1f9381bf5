"""Sub-domains of a ReLU split with narrower limits: where their own bounds leave a half space open,
and by rows of their neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from runner.engine.bounds.subdomains import Inspection, Subdomains
from runner.engine.search.clipping import Clipping
from runner.engine.search.confining import Confining
from runner.engine.search.domains import Domains
from runner.engine.search.search import SearchContext
from runner.engine.search.split_root import SplitRoot


class Narrowing:
    """Of one search. `close` is told the disjuncts [n] and margins [n] of what is closed so."""

    def __init__(
        self, context: SearchContext, root: SplitRoot, close: Callable[[Tensor, Tensor], None]
    ) -> None:
        self._root = root
        self._close = close
        self._clipping = Clipping(context, root)
        self._confining = Confining(context, root)

    @property
    def clips(self) -> bool:
        """Whether to clip the next batch; to be asked once for each."""
        return self._clipping.due

    def seen(self, domains: Subdomains) -> Inspection:
        """With bounds that are proved."""
        return self._clipping.seen(domains)

    def narrowed(
        self, taken: Domains, seen: Inspection, *, clips: bool
    ) -> tuple[Domains, Inspection]:
        """Of domains with what is `seen` of them, proved where it `clips`: those that stay open."""
        if clips:
            found = self._clipping.clipped(taken, self._root.inspected(taken, seen))
            if found is not None:
                before = self._missed(taken, seen)
                found, seen = self._seen_anew(found)
                self._clipping.gained(before, -found.margins)
                taken, seen = self._open(found, seen)
        due = self._confining.due(taken)
        if len(due):
            before = self._missed(taken, seen)
            found = self._confining.confined(taken, due, self._root.inspected(taken, seen))
            found, seen = self._seen_anew(found)
            self._confining.gained(before[due], -found.margins[due])
            stood = found.stood.index_copy(0, due, found.margins[due])
            taken, seen = self._open(replace(found, stood=stood), seen)
        return taken, seen

    def _missed(self, domains: Domains, seen: Inspection) -> Tensor:
        """By how much bounds are below their thresholds [B]."""
        return -self._root.rows.margins(seen.bounds, domains.disjunct).amax(0)

    def _seen_anew(self, found: Domains) -> tuple[Domains, Inspection]:
        """With the margins that new limits prove, inf where those cross."""
        seen = self.seen(self._root.subdomains(found))
        margins = torch.maximum(-self._missed(found, seen), found.margins)
        margins = torch.where(_empty(found), torch.inf, margins)
        return replace(found, margins=torch.minimum(margins, found.ceiling)), seen

    def _open(self, found: Domains, seen: Inspection) -> tuple[Domains, Inspection]:
        """Those that stay open; the others are closed."""
        closed = _empty(found) | (self._missed(found, seen) < 0)
        self._close(found.disjunct[closed], found.margins[closed])
        return found.select(~closed), seen.select(~closed)


def _empty(domains: Domains) -> Tensor:
    """Which [B] have limits that cross."""
    return (domains.lower > domains.upper).any(1)
