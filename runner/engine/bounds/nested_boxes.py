"""Boxes of a large network, each over the part of it that is open in a box around it.

Where a box is cut, its parts are bounded over the forms of what is open in it, if that is so much
less. Boxes that come one within the other leave a row of such networks, each a part of the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.box_alpha import Mixes
from runner.engine.bounds.boxes import BoxBounds, RowBounds
from runner.engine.bounds.deep_boxes import DeepBoxes
from runner.engine.bounds.folded import folded
from runner.engine.bounds.form_network import FormNetwork
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.narrowed import count_values, narrowed
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.tagging import Tagger
from runner.engine.bounds.tiles import row_block
from runner.engine.specs import Specs

# Of the weights of the last network, what the next one may have.
NARROWER = 0.6
# Rows of forms have no α, and so few copies: tiles may be so much longer. Their operators cost
# their number.
LONGER = 2


@dataclass(frozen=True)
class _Level:
    """Bounds of boxes within one; `forms`: None for the network itself."""

    forms: FormNetwork | None
    boxes: DeepBoxes

    def holds(self, box: Interval) -> bool:
        return self.forms is None or (len(box.lower) == 1 and _within(box, self.forms.box))


class NestedBoxes:
    """As DeepBoxes, whose `root` is what is known of the whole box. What is asked of bounds is
    asked of the last ones that were found.
    """

    def __init__(
        self,
        network: BoundNetwork,
        settings: Settings,
        root: NetworkBounds | None,
        tag: Tagger,
        checkpoint: Callable[[], None],
    ) -> None:
        self._network, self._settings = network, settings
        self._tag, self._checkpoint = tag, checkpoint
        first = DeepBoxes(network, settings, root, tag, checkpoint)
        self.start_nodes = first.start_nodes
        self._levels = [_Level(None, first)]
        self._last: BoxBounds | None = None

    @property
    def work(self) -> int:
        """Rows that passed a node, since it was set."""
        return self._levels[-1].boxes.work

    @work.setter
    def work(self, rows: int) -> None:
        for level in self._levels:
            level.boxes.work = rows

    @property
    def depth(self) -> int:
        """How many networks of forms there are, one within the other."""
        return len(self._levels) - 1

    def bound(self, box: Interval, known: Mapping[str, Interval]) -> BoxBounds:
        return self.bound_for(box, known, None)

    def bound_for(
        self, box: Interval, known: Mapping[str, Interval], specs: Sequence[Specs] | None
    ) -> BoxBounds:
        """Of the nodes that are open around a box, by what is `known` of start nodes."""
        while not self._levels[-1].holds(box):
            self._levels.pop()
        level = self._levels[-1]
        if level.forms is not None:
            known = _parts(level.forms, known)
        self._last = level.boxes.bound_for(box, known, specs)
        return self._last

    def known(self, known: Mapping[str, Interval]) -> dict[str, Interval]:
        """Bounds of start nodes in the last box, which those are of the box or of one around it."""
        found = self._found.intervals
        forms = self._levels[-1].forms
        if forms is None:
            return {name: found[name] for name in known}
        after = dict(known)
        for relu in forms.relus:
            if relu.before in known:
                before, mine = known[relu.before], found[relu.before]
                ends = [
                    whole.flatten(1).index_copy(1, relu.at, end).reshape(whole.shape)
                    for whole, end in zip(before.ends, mine.ends, strict=True)
                ]
                after[relu.before] = Interval(*ends)
        return after

    def enter(self) -> None:
        """Parts of the last box are next."""
        found, forms = self._found, self._levels[-1].forms
        if EnginePart.FOLDED in self._settings.without or len(found.box.lower) != 1:
            return
        with torch.no_grad(), self._tag.kind(Memory.A):
            made = self._folded(found) if forms is None else _narrower(forms, found)
            if made is not None:
                self._add(made)

    def _folded(self, found: BoxBounds) -> FormNetwork | None:
        budget, tag = self._settings.budget, self._tag
        made = folded(self._network, found.box, found.intervals, budget, tag, self._checkpoint)
        corners = EnginePart.CORNERS not in self._settings.without
        return None if made is None else replace(made, corners=corners)

    def _add(self, forms: FormNetwork) -> None:
        """Within the last."""
        self._levels.append(_Level(forms, self._boxes_of(forms)))

    def _boxes_of(self, forms: FormNetwork) -> DeepBoxes:
        network = forms.network
        rows = LONGER * row_block(network.graph, self._settings.budget)
        settings = replace(self._settings, row_block=rows, least_rows=rows)
        return DeepBoxes(network, settings, None, self._tag, self._checkpoint)

    def opened(self) -> Tensor:
        return self._levels[-1].boxes.opened(self._found)

    def rows(self, bounds: BoxBounds, rows: Tensor, box: Tensor) -> RowBounds:
        return self._levels[-1].boxes.rows(bounds, rows, box)

    def same_rows(self, bounds: BoxBounds, rows: Tensor) -> RowBounds:
        return self._levels[-1].boxes.same_rows(bounds, rows)

    def mixed_rows(
        self, bounds: BoxBounds, mixes: Mixes, settings: AlphaSettings
    ) -> tuple[RowBounds, Tensor]:
        return self._levels[-1].boxes.mixed_rows(bounds, mixes, settings)

    @property
    def _found(self) -> BoxBounds:
        if self._last is None:
            raise ValueError("no box has been bounded yet")
        return self._last


def _narrower(forms: FormNetwork, found: BoxBounds) -> FormNetwork | None:
    """Where that leaves much less."""
    if count_values(forms, found.intervals) > NARROWER * forms.values:
        return None
    return narrowed(forms, found.box, found.intervals)


def _within(box: Interval, other: Interval) -> bool:
    return bool(((box.lower >= other.lower) & (box.upper <= other.upper)).all())


def _parts(forms: FormNetwork, intervals: Mapping[str, Interval]) -> dict[str, Interval]:
    """Bounds of the neurons that are open, of nodes of the whole network."""
    return {
        relu.before: Interval(*(end.flatten(1)[:, relu.at] for end in intervals[relu.before].ends))
        for relu in forms.relus
        if relu.before in intervals
    }
