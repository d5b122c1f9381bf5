"""Forms alone over many small boxes of few free inputs: no row goes back through the network.

One pass has as many columns as a box has free inputs, and is some times as quick as rows are. What
it loses, a few more halves of the box make good, as the loss falls with the square of its size.
Boxes with the same free inputs go together, and are passed by what varies in them alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.boxes import RowBounds
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.form import Form
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.live_part import LivePart, varying
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import LEDGER, grown, lost
from runner.engine.bounds.tagging import Tagger

# Copies of a pass's columns, and of their centre, that live at the same time, as a share of all.
LIVE_SHARE = 0.25
# Boxes of a core that are bounded at once.
MOST_BOXES = 512
# Sets of free inputs that are told apart; with more, all boxes have all of them.
MOST_SETS = 64


class BoxForms:
    """Of one network over parts of `roots`, boxes [C, *input] in float64. `checkpoint` is called
    before each pass; it may raise. All ranks do the same.
    """

    def __init__(
        self,
        network: BoundNetwork,
        roots: Interval,
        tag: Tagger,
        checkpoint: Callable[[], None] = lambda: None,
        budget: Budget = CORE,
    ) -> None:
        self._tag = tag
        mine = _sets(roots)
        self._set, self._place = mine, torch.zeros_like(mine)
        self.parts: list[LivePart] = []
        for number in range(int(mine.max()) + 1):
            own = (mine == number).nonzero()[:, 0]
            self._place[own] = torch.arange(len(own), device=own.device)
            some = Interval(roots.lower[own], roots.upper[own])
            self.parts.append(LivePart(network, some, tag, checkpoint, budget))
        columns = max(part.neurons * (1 + len(part.inputs)) for part in self.parts)
        fits = int(budget.bytes // max(1.0, LEDGER.itemsize * columns * LIVE_SHARE))
        self.batch = max(1, min(fits, budget.scaled(MOST_BOXES)))

    @torch.no_grad()
    def rows(self, box: Interval, root: Tensor, rows: Tensor, of: Tensor) -> RowBounds:
        """Lower bounds of rows @ outputs: rows [R, outputs], each over its box of [B, *input]: of
        [R]; root [B]: what each box is a part of.
        """
        inputs = box.lower.flatten(1).shape[1]
        lower, coefficients = rows.new_empty(len(rows)), rows.new_zeros((len(rows), inputs))
        sets = self._set[root]
        for number in sets.unique().tolist():
            part, chosen = self.parts[number], (sets == number).nonzero()[:, 0]
            mine = (sets[of] == number).nonzero()[:, 0]
            some = Interval(box.lower[chosen], box.upper[chosen])
            form = part.output(some, self._place[root[chosen]])
            place = torch.zeros_like(root).index_copy_(
                0, chosen, torch.arange(len(chosen), device=root.device)
            )
            with self._tag.kind(Memory.A):
                least, along = _bounded(form, rows[mine], place[of[mine]])
                lower[mine] = least
                at = part.inputs[list(form.symbols)]
                radius = some.radius.flatten(1)[:, at][place[of[mine]]]
                slopes = torch.where(radius > 0, along.T / radius, 0.0)
                coefficients[mine.unsqueeze(1), at] = slopes
        return RowBounds(lower, coefficients)


def most_columns(roots: Interval) -> int:
    """Of a pass over parts of boxes [C, *input]."""
    wide, mine = varying(roots).flatten(1), _sets(roots)
    return max(int(wide[mine == number].any(0).sum()) for number in range(int(mine.max()) + 1))


def _sets(roots: Interval) -> Tensor:
    """[C]: which boxes have the same free inputs."""
    sets, mine = varying(roots).flatten(1).unique(dim=0, return_inverse=True)
    return mine if len(sets) <= MOST_SETS else torch.zeros_like(mine)


def _bounded(form: Form, rows: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows [R, outputs] of a form of the outputs, each over its box: the least values [R], and
    columns [K, R]. Outputs cancel in the columns.
    """
    size = rows.abs()
    centre, error, whole = (values[of] for values in (form.centre, form.error, form.size))
    along = (form.columns[:, of] * rows).sum(2)
    off = (size * lost(error, whole, rows.shape[1])).sum(1) + along.abs().sum(0)
    off = grown(off, rows.shape[1] + form.count, form.count + 2)
    lower = (rows * centre).sum(1) - off
    # The last difference is rounded as well.
    return lower - lost(torch.zeros_like(lower), lower.abs() + off, 1), along
