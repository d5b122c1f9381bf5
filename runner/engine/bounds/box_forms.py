"""Forms over many small boxes of few free inputs: no neuron has a row of its own.

One pass has as many columns as a box has free inputs, and is some times as quick as rows of all
neurons are. What it loses, a few more halves of the box make good, as the loss falls with the
square of its size; and what is wanted of the outputs goes back as rows, over forms of all neurons.
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
from runner.engine.bounds.live_part import LivePart, LivePass
from runner.engine.bounds.live_steps import Matrices
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import LEDGER, grown, lost
from runner.engine.bounds.tagging import Tagger

# Of each value of a pass, what lives beside its columns: centre, error, size and bounds.
LIVE_BESIDE = 5
# Boxes of a core that are bounded at once.
MOST_BOXES = 512
# Sets of free inputs that are told apart; with more, all boxes have all of them.
MOST_SETS = 64


class BoxForms:
    """Of one network over parts of `roots`, boxes [C, *input] in float64. `checkpoint` is called
    before each pass; it may raise. All ranks do the same. `sets` [C]: which roots have the same
    free inputs; parts of these alone make the fastest batches.
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
        self.sets, self._place = mine, torch.zeros_like(mine)
        self.parts: list[LivePart] = []
        matrices = Matrices(budget.bytes)
        for number in range(int(mine.max()) + 1):
            own = (mine == number).nonzero()[:, 0]
            self._place[own] = torch.arange(len(own), device=own.device)
            some = Interval(roots.lower[own], roots.upper[own])
            self.parts.append(LivePart(network, some, tag, checkpoint, budget, matrices))
        self._most, self._bytes = budget.scaled(MOST_BOXES), budget.bytes

    def batch(self, number: int) -> int:
        """Boxes of a set that are bounded at once."""
        part = self.parts[number]
        values = part.neurons * (LIVE_BESIDE + len(part.inputs))
        return max(1, min(self._most, self._bytes // max(1, LEDGER.itemsize * values)))

    @torch.no_grad()
    def rows(
        self, box: Interval, root: Tensor, rows: Tensor, of: Tensor, wanted: Tensor
    ) -> RowBounds:
        """Lower bounds of rows @ outputs: rows [R, outputs], each over its box of [B, *input]: of
        [R]; root [B]: what each box is a part of. Rows whose form does not lie above what is
        `wanted` [R] go back through the network as well.
        """
        inputs = box.lower.flatten(1).shape[1]
        lower, slopes = rows.new_empty(len(rows)), rows.new_zeros((len(rows), inputs))
        planes = torch.zeros_like(slopes)
        sets = self.sets[root]
        for number in sets.unique().tolist():
            part, chosen = self.parts[number], (sets == number).nonzero()[:, 0]
            mine = (sets[of] == number).nonzero()[:, 0]
            place = torch.zeros_like(root).index_copy_(
                0, chosen, torch.arange(len(chosen), device=root.device)
            )
            passed = part.pass_over(
                Interval(box.lower[chosen], box.upper[chosen]), self._place[root[chosen]]
            )
            with self._tag.kind(Memory.A):
                found = _bounded(passed, rows[mine], place[of[mine]], wanted[mine])
                at = mine.unsqueeze(1), part.inputs
                lower[mine], slopes[at], planes[at] = found
        return RowBounds(lower, slopes, planes)


def most_columns(roots: Interval) -> int:
    """Of a pass over parts of boxes [C, *input]."""
    wide, mine = roots.varying.flatten(1), _sets(roots)
    return max(int(wide[mine == number].any(0).sum()) for number in range(int(mine.max()) + 1))


def _sets(roots: Interval) -> Tensor:
    """[C]: which boxes have the same free inputs."""
    sets, mine = roots.varying.flatten(1).unique(dim=0, return_inverse=True)
    return mine if len(sets) <= MOST_SETS else torch.zeros_like(mine)


def _bounded(
    passed: LivePass, rows: Tensor, of: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of rows [R, outputs], each over its box `of`: the least values [R]; by free inputs [R, K] how
    steep forms are, whose lines never lie flat where a plane's may, and the planes that least
    values are of.
    """
    least, along = _by_forms(passed.output, rows, of)
    radius = passed.radius[of]
    slopes = torch.zeros_like(radius)
    slopes[:, list(passed.output.symbols)] = along.T
    slopes = torch.where(radius > 0, slopes / radius, 0.0)
    planes = slopes
    rest = (~(least > wanted)).nonzero()[:, 0]
    if passed.back and len(rest):
        back, plane = passed.least(rows[rest], of[rest])
        better = back > least[rest]
        rest = rest[better]
        least = least.index_copy(0, rest, back[better])
        planes = planes.index_copy(0, rest, plane[better])
    return least, slopes, planes


def _by_forms(form: Form, rows: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
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
