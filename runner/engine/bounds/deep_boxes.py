"""Boxes of large networks, bounded one by one as the driver does it.

Where a network is large, few boxes can be bounded at all, so each is worth rows for all that is
open in it. What its parent left open is little beside what there was at first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds.boxes import BoxBounds, BoxPropagator
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.last_rows import LastRows
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.precision import DEAR
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.refinement import NO_REFINEMENT, Refinement
from runner.engine.bounds.rounding import LEDGER
from runner.engine.bounds.tagging import Tagger
from runner.engine.specs import Specs

# Cheap boxes show whether halving them leads anywhere if so many, or all that come of halving each
# input once, take no more than so many multiply-adds by forms alone (some seconds of a core).
TRIAL_BOXES, TRIAL_WORK = 1000, 100_000_000_000
# Of the work of a layer's rows, what its form may take: forms of parts close few neurons more than
# what is known of the whole.
FORWARD_SHARE = 0.05


def few_boxes(network: BoundNetwork, free: int) -> bool:
    """Whether a network with so many free inputs is too large for many boxes."""
    of_box = max(1, free) * network.work(network.graph.nodes)
    return min(TRIAL_BOXES, 1 << min(free, 64)) * of_box > TRIAL_WORK


class DeepBoxes(BoxPropagator):
    """`root`: what is known of the whole box, of which no rows are taken again. `first`: the start
    nodes without a relaxed node before them.
    """

    def __init__(
        self,
        network: BoundNetwork,
        settings: Settings,
        root: NetworkBounds | None,
        tag: Tagger,
        checkpoint: Callable[[], None],
    ) -> None:
        super().__init__(
            network, tag, checkpoint, settings.interval_only, settings.budget, settings.without
        )
        share = min(settings.forward_share, FORWARD_SHARE)
        self._settings = replace(settings, method=Method.CROWN, forward_share=share)
        self._root = root
        behind = {name: {n.name for n in network.ancestors(name)} for name in network.start_nodes}
        self.first = [name for name in behind if not behind[name] & network.relaxed.keys()]
        self._last = LastRows.of(network, frozenset(self.start_nodes))

    @torch.no_grad()
    def opened(self, bounds: BoxBounds) -> Tensor:
        """How much of what leaves neurons of the first start nodes open each input makes up, by box
        [N, inputs]. The slopes of a loose bound at the outputs say less of what a cut would close.
        """
        radius = bounds.box.radius.flatten(1)
        total = torch.zeros_like(radius)
        varies = bounds.box.varying.flatten(1)
        for name in self.first:
            open_ = self._wanted(self._network.graph.node(name), bounds.intervals[name])
            for index, of_box in enumerate(radius):
                free = varies[index].nonzero()[:, 0]
                moved = self._moved(name, of_box.diag()[free]).flatten(1).abs()
                total[index, free] += (moved * open_[index]).sum(1)
        return total

    def _moved(self, name: str, x: Tensor) -> Tensor:
        """How far a first start node goes when the input goes by x [N, inputs]: [N, *shape]."""
        graph = self._network.graph
        values = {graph.input.name: x.reshape(-1, *graph.input.shape)}
        for node in reversed(self._network.ancestors(name)):
            before = (values[each] for each in node.inputs)
            values[node.name] = self._network.linear[node.name].directions(*before)
        return values[name]

    def bound(self, box: Interval, known: Mapping[str, Interval]) -> BoxBounds:
        return self.bound_for(box, known, None)

    @torch.no_grad()
    def bound_for(
        self, box: Interval, known: Mapping[str, Interval], specs: Sequence[Specs] | None
    ) -> BoxBounds:
        """`bound`, with rows of the last layer as far as it takes to tell whether the specs of each
        box hold in it.
        """
        parts = []
        for index in range(len(box.lower)):
            of_box = {name: interval.part(index) for name, interval in known.items()}
            asked = None if specs is None else specs[index]
            parts.append(self._bound_one(box.part(index), of_box, asked))
        dtype = box.lower.dtype
        joined = {
            name: Interval.joined([part.intervals[name].outer(dtype) for part in parts])
            for name in parts[0].intervals
        }
        return BoxBounds(box, joined)

    def _bound_one(
        self, box: Interval, known: Mapping[str, Interval], specs: Specs | None
    ) -> NetworkBounds:
        fine = self._root.fine if self._root is not None else frozenset()
        before = NetworkBounds(box, dict(known), fine=fine)
        last = None if self._is_root(box) or specs is None else self._last
        refinement = NO_REFINEMENT if self._is_root(box) else Refinement()
        if last is not None:
            refinement = last.none(box.lower.device)
        driver = Propagator(
            self._network, self._settings, self._tag, self._checkpoint, None, refinement
        )
        found = driver.bound(box, before, box.to(LEDGER), DEAR)
        if last is not None and specs is not None:
            found = last.bound(driver, found, specs)
        nodes = driver.starts.nodes
        self.work += sum(
            2
            * int(self._wanted(node, found.intervals[node.name]).sum())
            * len(self._network.ancestors(node.name))
            for node in nodes
        )
        return found

    def _is_root(self, box: Interval) -> bool:
        if self._root is None:
            return False
        whole = self._root.box
        return torch.equal(box.lower, whole.lower) and torch.equal(box.upper, whole.upper)
