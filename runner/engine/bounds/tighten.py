"""Bounds of intermediate neurons over sub-domains anew: CROWN with the ReLUs cut as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from runner.contract.vocabulary import Method
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.space import Space, Splittable
from runner.engine.bounds.tagging import Tagger

# Start rows that exist at once, over all sub-domains of a part; of a core.
ROWS_AT_ONCE = 4096


class Tightener:
    """Over sub-domains of one box; `intervals`: bounds of every node over it, [1, *shape]."""

    def __init__(
        self,
        network: BoundNetwork,
        settings: Settings,
        space: Space[Splittable],
        intervals: dict[str, Interval],
        tag: Tagger,
        checkpoint: Callable[[], None],
    ) -> None:
        self._space = space
        self._intervals = intervals
        self._propagator = Propagator(
            network, replace(settings, method=Method.CROWN), tag, checkpoint
        )
        widest = max((2 * len(node.neurons) for node in space.nodes), default=1)
        rows_at_once = settings.budget.scaled(ROWS_AT_ONCE)
        self._part = max(1, rows_at_once // max(1, min(widest, settings.row_block)))

    @property
    def rows(self) -> int:
        """Start rows of one sub-domain, at most: what tightening it costs, in backward passes."""
        exact = self._propagator.network.exact
        return sum(2 * len(n.neurons) for n in self._space.nodes if n.before not in exact)

    def tightened(self, before: Interval) -> Interval:
        """Bounds [B, N] of the unstable neurons' inputs, never looser than `before`.

        Bounds that cross say that the sub-domain is empty.
        """
        parts = [
            self._tightened(Interval(lower, upper))
            for lower, upper in zip(
                before.lower.split(self._part), before.upper.split(self._part), strict=True
            )
        ]
        found = Interval(torch.cat([p.lower for p in parts]), torch.cat([p.upper for p in parts]))
        return found.intersect(before)

    def _tightened(self, before: Interval) -> Interval:
        known = {
            name: Interval(
                interval.lower.expand(len(before.lower), *interval.lower.shape[1:]),
                interval.upper.expand(len(before.lower), *interval.upper.shape[1:]),
            )
            for name, interval in self._intervals.items()
        }
        for node in self._space.nodes:
            whole = known[node.before]
            lower, upper = whole.lower.flatten(1).clone(), whole.upper.flatten(1).clone()
            lower[:, node.neurons] = before.lower[:, node.start : node.stop]
            upper[:, node.neurons] = before.upper[:, node.start : node.stop]
            known[node.before] = Interval(lower, upper).reshape(*whole.lower.shape)
        box = known[self._propagator.network.graph.input.name]
        found = self._propagator.bound(box, NetworkBounds(box, known)).intervals
        return Interval(
            self._space.columns_of({n: i.lower for n, i in found.items()}),
            self._space.columns_of({n: i.upper for n, i in found.items()}),
        )
