"""A case of a property as tensors: rows to bound, thresholds, and the box in a float dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.bounds.interval import Interval
from runner.property.inside import CHECKER_TOLERANCE
from runner.property.model import Case

# Of rows [S, outputs]: by how much more than its limit each must be proved to lie above it [S].
Room = Callable[[Tensor], Tensor]


def no_room(rows: Tensor) -> Tensor:
    return rows.new_zeros(len(rows))


@dataclass(frozen=True)
class Specs:
    """Rows [S, outputs], limits [S], thresholds [S] and the disjunct [S] that each row belongs to.

    An output is unsafe where all rows of a disjunct are at most their limits. The disjunct is
    excluded as soon as one of its rows is proved greater than its threshold: the limit, and what
    the runtime may be off by (`room`).
    """

    rows: Tensor
    limits: Tensor
    thresholds: Tensor
    disjunct: Tensor
    disjuncts: int

    @staticmethod
    def of(case: Case, device: torch.device, room: Room = no_room) -> Specs:
        sizes = [len(conjunction.rhs) for conjunction in case.unsafe]
        outputs = case.unsafe[0].matrix.shape[1] if case.unsafe else 0
        matrix = np.concatenate([c.matrix for c in case.unsafe] or [np.zeros((0, outputs))])
        rhs = np.concatenate([c.rhs for c in case.unsafe] or [np.zeros(0)])
        disjunct = torch.repeat_interleave(
            torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.long)
        )
        rows, limits = torch.from_numpy(matrix).to(device), torch.from_numpy(rhs).to(device)
        wanted = room(rows)
        raised = torch.nextafter(limits + wanted, torch.full_like(limits, torch.inf))
        thresholds = torch.where(wanted > 0, raised, limits)
        return Specs(rows, limits, thresholds, disjunct.to(device), len(sizes))

    def select(self, disjuncts: Tensor) -> Specs:
        """Only the rows of some disjuncts (a mask [disjuncts]); numbers stay as they are."""
        return self._chosen(disjuncts[self.disjunct])

    def part(self, start: int, stop: int) -> Specs:
        """Only rows start to stop; numbers stay as they are."""
        return self._chosen(slice(start, stop))

    def _chosen(self, at: Tensor | slice) -> Specs:
        return replace(
            self,
            rows=self.rows[at],
            limits=self.limits[at],
            thresholds=self.thresholds[at],
            disjunct=self.disjunct[at],
        )

    def margins(self, bounds: Tensor) -> Tensor:
        """Of lower bounds [S]: each disjunct's best margin [disjuncts], -inf without rows."""
        margins = bounds.new_full((self.disjuncts,), -torch.inf)
        return margins.scatter_reduce(0, self.disjunct, bounds - self.thresholds, "amax")


def box_around(
    case: Case, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Interval:
    """The smallest box [1, *shape] of a dtype that contains the case's."""
    lower, upper = torch.from_numpy(case.lower), torch.from_numpy(case.upper)
    below, above = lower.to(dtype), upper.to(dtype)
    down, up = torch.full_like(below, -torch.inf), torch.full_like(above, torch.inf)
    below = torch.where(below.double() > lower, torch.nextafter(below, down), below)
    above = torch.where(above.double() < upper, torch.nextafter(above, up), above)
    return Interval(below.reshape(1, *shape).to(device), above.reshape(1, *shape).to(device))


def box_within(
    case: Case, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Interval:
    """The values of a float dtype inside the case's box: a counterexample may have no others.

    Where none lies between two limits, those beside them stand in that lie within the tolerance
    of the input; where even these do not, what the limits round to: a checker that rounds limits
    accepts no others.
    """
    kind = torch.zeros(0, dtype=dtype).numpy().dtype
    least, greatest = case.within
    lower, upper = _rounded(least, kind, np.inf), _rounded(greatest, kind, -np.inf)
    none = lower > upper
    if np.any(none):
        with np.errstate(over="ignore"):
            first, last = (limit.astype(kind) for limit in case.nearest)
        # Where they are crossed, they are the values beside the gap.
        below, above = upper, lower
        reaches = least - below <= CHECKER_TOLERANCE, above - greatest <= CHECKER_TOLERANCE
        lower = np.where(none, np.select(reaches, (below, above), first), lower)
        upper = np.where(none, np.select(reaches[::-1], (above, below), last), upper)
    most = np.finfo(kind).max
    return _interval(lower.clip(-most, most), upper.clip(-most, most), shape, device)


def _rounded(
    values: NDArray[np.float64], kind: np.dtype[np.floating], towards: float
) -> NDArray[np.floating]:
    """The nearest values of a float dtype that do not lie on the other side."""
    with np.errstate(over="ignore"):
        rounded = values.astype(kind)
    past = rounded < values if towards > 0 else rounded > values
    return np.where(past, np.nextafter(rounded, kind.type(towards)), rounded)


def _interval(
    lower: NDArray[np.floating],
    upper: NDArray[np.floating],
    shape: tuple[int, ...],
    device: torch.device,
) -> Interval:
    return Interval(
        torch.from_numpy(lower).reshape(1, *shape).to(device),
        torch.from_numpy(upper).reshape(1, *shape).to(device),
    )
