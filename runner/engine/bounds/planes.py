"""Planes over the box of the input that lie above ReLUs.

The triangle over a ReLU knows the range of its input z alone. Where z <= f(x) for a linear f of the
network's input x, any linear p with p >= 0 and p >= f over the box is above max(0, z), too. At a
corner of the box, where a bound takes its least value, the best one is as good as the ReLU itself.
For the inputs of a neuron these are the facets of Tjandraatmadja et al. (2020, *The Convex
Relaxation Barrier, Revisited*, §3); for forms of neurons of any layer, and mixes of a plane and the
triangle by a multiplier, they are our own definition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.plane_bands import BandedSlopes
from runner.engine.bounds.rounding import LEDGER, below, charged, floor, gamma, summed

# Additions and products of one entry of a plane beside its sum, when it is checked.
CHECK_ROUNDINGS = 8


@dataclass(frozen=True)
class NodePlanes:
    """Of P of this rank's unstable neurons before one ReLU node, S sets of planes: the ReLU's
    output is at most slopes · x + offsets for every point x of the box, in real arithmetic.

    at [P]: which of the rank's columns; banded: slopes [S, P, inputs]; offsets [S, P]; sizes
    [S, P]: what the absolute values of slopes · x + offsets add up to, at most; terms: neurons of
    all ranks that have a plane, and what ranks add; floor [1]: what underflow costs a row.
    """

    at: Tensor
    banded: BandedSlopes
    offsets: Tensor
    sizes: Tensor
    terms: int
    floor: Tensor

    @property
    def slopes(self) -> Tensor:
        """[S, P, inputs], zeros and all."""
        return self.banded.dense()

    def to(self, dtype: torch.dtype) -> NodePlanes:
        """In the same or a higher precision. Slopes stay as they are: they take most room, and few
        of their sets are in use, which are widened then.
        """
        found = {name: getattr(self, name) for name in (field.name for field in fields(self))}
        for name in ("offsets", "sizes", "floor"):
            found[name] = found[name].to(dtype)
        return NodePlanes(**found)


@dataclass(frozen=True)
class UpperForms:
    """Of P neurons and the box [1, *input]: z <= -(rows · x + constants) in real arithmetic, rows
    [P, inputs], constants [P] in float64.
    """

    box: Interval
    rows: Tensor
    constants: Tensor


def proved(forms: UpperForms, at: Tensor, slopes: Tensor, terms: int) -> NodePlanes:
    """Planes of such slopes [S, P, inputs], as low as they are known to be above the ReLUs."""
    middle, radius = (part.flatten().to(LEDGER) for part in forms.box.ball)
    size = forms.box.size.flatten().to(LEDGER)
    rows = forms.rows.to(LEDGER)
    share = gamma(len(middle) + CHECK_ROUNDINGS, LEDGER)
    reach = middle.abs() + radius
    of_rows = rows.abs() @ reach + forms.constants.abs()
    offsets, sizes = [], []
    for one in slopes:  # A set at a time, as float64 takes room.
        fine = one.to(LEDGER)
        rest = fine + rows
        over_zero = fine.abs() @ radius - fine @ middle
        over_form = rest.abs() @ radius - rest @ middle - forms.constants
        error = (fine.abs() @ reach + of_rows) * share
        offset = -below(-(torch.maximum(over_zero, over_form) + error), slopes.dtype)
        total = (fine.abs() @ size + offset.abs()) * (1 + share)
        offsets.append(offset)
        sizes.append(-below(-total, slopes.dtype))
    lowest = floor(forms.box.size, terms)
    banded = BandedSlopes.of(slopes, forms.box.lower.shape[1:])
    return NodePlanes(at, banded, torch.stack(offsets), torch.stack(sizes), terms, lowest)


class Above:
    """The planes of one node over B sub-domains, each of one set [B]."""

    def __init__(self, planes: NodePlanes, sets: Tensor) -> None:
        self._planes = planes
        order = sets.argsort(stable=True)
        counts = torch.bincount(sets, minlength=len(planes.banded)).tolist()
        ends = [sum(counts[:number]) for number in range(len(counts) + 1)]
        self._groups = [
            (number, order[start:stop])
            for number, (start, stop) in enumerate(pairwise(ends))
            if stop > start
        ] or [(0, order)]
        self._back = order.argsort()

    def shared(self, free: Tensor) -> Tensor:
        """Of own columns that can share [B, V]: those that have a plane, 1 or 0."""
        has = free.new_zeros(free.shape[1]).index_fill_(0, self._planes.at, 1.0)
        return free * has

    def passed(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients [K, B, V] <= 0 of the ReLUs' outputs, given to their planes: what they make
        of the input [K, B, inputs], and a constant [K, B].
        """
        planes = self._planes
        mine = given.index_select(2, planes.at)
        of_input = self._by_set(mine, lambda of, part: planes.banded.times(part, of))
        constant = self._by_set(mine, lambda of, part: summed(part * planes.offsets[of]))
        return of_input, constant

    def charge(self, rows: Tensor) -> Tensor:
        """What rounding costs that coefficients [K, B, V] of outputs are shared: [K, B].

        A share and its rest are within a rounding of the whole, which the ReLU's output, at most a
        plane's size, is multiplied with.
        """
        planes = self._planes

        def charge(number: int, part: Tensor) -> Tensor:
            return charged(part, planes.sizes[number][None], planes.terms, planes.floor)

        return self._by_set(rows.index_select(2, planes.at), charge)

    def _by_set(self, values: Tensor, function: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Of values [K, B, P], those of one set at a time."""
        if len(self._groups) == 1:
            return function(self._groups[0][0], values)
        parts = [function(number, values[:, index]) for number, index in self._groups]
        return torch.cat(parts, 1)[:, self._back]
