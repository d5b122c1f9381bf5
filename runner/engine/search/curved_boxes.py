"""Margins of many boxes by curved bounds: for networks of few variables that multiply values."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.box_alpha import Mixes
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.curved import WIDE, CurvedBounds, curved_bounds, curves, variables
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.quadratic import greatest_least, linear_margins, quadratics
from runner.engine.bounds.tagging import Tagger
from runner.engine.search.box_store import Boxes
from runner.engine.search.disjuncts import Disjuncts
from runner.engine.search.margins import Margins
from runner.engine.specs import Specs

# Copies of columns of forms, and of matrices of rows, that live at the same time.
LIVE_COPIES = 8


class CurvedBoxes:
    """Of one network and the open disjuncts of a case."""

    def __init__(
        self,
        network: BoundNetwork,
        specs: Specs,
        disjuncts: Disjuncts,
        tag: Tagger,
        budget: Budget,
    ) -> None:
        self._network, self._specs, self._disjuncts, self._tag = network, specs, disjuncts, tag
        count = variables(network.graph)
        widest = max(node.size for node in network.graph.nodes)
        values = budget.bytes // (LIVE_COPIES * WIDE.itemsize)
        self._boxes = max(1, values // (count * widest))
        self._pairs = max(1, values // (disjuncts.longest * count * count))
        self._columns = count * len(network.graph.nodes)
        self._shared = _shared(specs)
        self._work = 0

    @staticmethod
    def of(
        network: BoundNetwork, specs: Specs, disjuncts: Disjuncts, tag: Tagger, budget: Budget
    ) -> CurvedBoxes | None:
        """None where a network has nothing that curves, or too much."""
        if not len(specs.rows) or not curves(network.graph):
            return None
        return CurvedBoxes(network, specs, disjuncts, tag, budget)

    def work_done(self) -> int:
        """Columns that passed a node since it was asked last."""
        done, self._work = self._work, 0
        return done

    @torch.no_grad()
    def margins(self, boxes: Boxes) -> Margins:
        parts = []
        for numbers in torch.arange(len(boxes), device=boxes.lower.device).split(self._boxes):
            some = boxes.select(numbers)
            with self._tag.kind(Memory.A):
                box = some.interval(self._network.graph.input.shape)
                bounds = curved_bounds(self._network, box)
            parts.append(self._of(some, bounds))
            self._work += self._columns * len(some)
        return Margins.joined(parts)

    def _of(self, boxes: Boxes, bounds: CurvedBounds) -> Margins:
        lower = linear_margins(bounds, self._specs.rows, self._specs.thresholds)
        lower = self._with_shared(boxes, bounds, lower)
        margins = self._disjuncts.best(lower)
        shape = (*margins.shape, bounds.inputs)
        weights = lower.new_zeros((*margins.shape, lower.shape[1]))
        found = Margins(margins, lower.new_zeros(shape), lower.new_zeros(shape), weights)
        radius = ((boxes.upper.double() - boxes.lower.double()) / 2).clamp(min=1e-300)
        box, disjunct = (boxes.open & ~(margins > 0)).nonzero().unbind(1)
        if not len(box):
            return found
        mixes = self._disjuncts.mixes(box, disjunct, weights)
        for some, of in zip(mixes.split(self._pairs), disjunct.split(self._pairs), strict=True):
            self._mixed(bounds, some, of, radius, found)
        return found

    def _mixed(
        self, bounds: CurvedBounds, mixes: Mixes, disjunct: Tensor, radius: Tensor, found: Margins
    ) -> None:
        with self._tag.kind(Memory.A):
            rows = quadratics(bounds, mixes.rows, mixes.thresholds, mixes.box)
            best = greatest_least(rows, mixes.real)
        at = mixes.box, disjunct
        found.margins[at] = torch.maximum(found.margins[at], best.lower)
        found.slopes[at] = best.slopes / radius[mixes.box]
        found.steep[at] = best.loose / radius[mixes.box]

    def _with_shared(self, boxes: Boxes, bounds: CurvedBounds, lower: Tensor) -> Tensor:
        """Rows [N, S], with those that several disjuncts have bounded by themselves: one of them
        may close a box at once.
        """
        for row, same in self._shared:
            still = (boxes.open & ~(self._disjuncts.best(lower) > 0)).any(1).nonzero()[:, 0]
            rows = self._specs.rows[row].expand(len(still), 1, -1)
            thresholds = self._specs.thresholds[row].expand(len(still), 1)
            of = quadratics(bounds, rows, thresholds, still)
            real = torch.ones_like(thresholds, dtype=torch.bool)
            best = greatest_least(of, real).lower
            for index in same:
                lower[still, index] = torch.maximum(lower[still, index], best)
        return lower


def _shared(specs: Specs) -> list[tuple[int, list[int]]]:
    """Rows that are the same in several disjuncts, each with all that are the same."""
    groups: dict[tuple[float, ...], list[int]] = {}
    whole = torch.cat((specs.rows, specs.thresholds[:, None]), 1)
    for index, values in enumerate(whole.tolist()):
        groups.setdefault(tuple(values), []).append(index)
    return [(same[0], same) for same in groups.values() if len(same) > 1]
