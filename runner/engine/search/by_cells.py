"""A case whose box falls into finitely many cells: excluded when it is in every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.budget import Budget
from runner.engine.bounds.cell_pass import CellPass
from runner.engine.bounds.cells import Cells
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.tagging import Tagger
from runner.engine.search.cases import CaseProgress

# Cells that do not fit the error of all others and get a pass of their own: a few are near a jump
# of an inner function, and where many are, splits had better decide.
MOST_ALONE = 64


@dataclass(frozen=True)
class CellClock:
    """checkpoint: called before each pass, may raise; ended: asked before each batch, whether no
    more is to be bounded. Both are the same on all ranks. told: cells done, and all.
    """

    checkpoint: Callable[[], None]
    ended: Callable[[], bool]
    told: Callable[[int, int], None]


def exclude_by_cells(
    network: BoundNetwork,
    case: CaseProgress,
    root: Interval,
    cells: Cells,
    clock: CellClock,
    tag: Tagger,
    budget: Budget,
) -> None:
    """Closes the disjuncts of a case that no cell of `root`, its box [1, *input] in float64,
    reaches. All ranks do the same.
    """
    clock.checkpoint()
    found = _Excluding(CellPass(network, root, cells, tag, budget), case, clock).run(len(cells))
    if found is not None:
        case.margins = torch.where(found > 0, torch.fmax(case.margins, found), case.margins)
        case.open = case.open & ~(found > 0)


class _Excluding:
    """Goes through the cells for as long as a disjunct is excluded in all that were looked at."""

    def __init__(self, cells: CellPass, case: CaseProgress, clock: CellClock) -> None:
        self._cells, self._clock, self._alone = cells, clock, MOST_ALONE
        self._specs, self._still = case.specs.select(case.open), case.open.clone()

    def run(self, count: int) -> Tensor | None:
        """Least margins [disjuncts] over all cells; -inf of what is open. None: it ended early."""
        least = self._specs.thresholds.new_full((self._specs.disjuncts,), torch.inf)
        for first in range(0, count, self._cells.batch):
            last = min(first + self._cells.batch, count)
            if self._clock.ended():
                return None
            numbers = torch.arange(first, last, device=least.device)
            least = torch.minimum(least, self._margins(numbers).amin(0))
            self._still &= least > 0
            self._clock.told(last, count)
            if not bool(self._still.any()):
                return None
        return torch.where(self._still, least, -torch.inf)

    def _margins(self, numbers: Tensor) -> Tensor:
        """Of some cells [B, disjuncts]."""
        margins = self._of(numbers)
        failed = (~(margins > 0) & self._still).any(1).nonzero()[:, 0].tolist()
        if len(failed) <= self._alone and len(numbers) > 1:
            self._alone -= len(failed)
            for number in failed:
                margins[number] = self._of(numbers[number : number + 1])[0]
        return margins

    def _of(self, numbers: Tensor) -> Tensor:
        self._clock.checkpoint()
        specs = self._specs
        above = self._cells.least(numbers, specs.rows) - specs.thresholds
        above = above.nan_to_num(nan=-torch.inf)
        margins = above.new_full((len(numbers), specs.disjuncts), -torch.inf)
        index = specs.disjunct.expand(len(numbers), -1)
        return margins.scatter_reduce(1, index, above, "amax")
