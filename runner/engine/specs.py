"""A case of a property as tensors: rows to bound, thresholds, and the box in a float dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.problem.property.model import Case

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
        return Specs.of_all([case], device, room)[0]

    @staticmethod
    def of_all(cases: Sequence[Case], device: torch.device, room: Room = no_room) -> list[Specs]:
        """Of every case; their tensors are made together, as a property may have thousands."""
        regions = [region for case in cases for region in case.unsafe]
        outputs = regions[0].matrix.shape[1] if regions else 0
        matrix = np.concatenate([np.zeros((0, outputs)), *(region.matrix for region in regions)])
        rhs = np.concatenate([np.zeros(0), *(region.rhs for region in regions)])
        numbers = [number for case in cases for number in range(len(case.unsafe))]
        lengths = [len(region.rhs) for region in regions]
        disjunct = torch.from_numpy(np.repeat(np.array(numbers, dtype=np.int64), lengths))
        rows, limits = torch.from_numpy(matrix).to(device), torch.from_numpy(rhs).to(device)
        wanted = room(rows)
        raised = torch.nextafter(limits + wanted, torch.full_like(limits, torch.inf))
        thresholds = torch.where(wanted > 0, raised, limits)
        counts = [sum(len(region.rhs) for region in case.unsafe) for case in cases]
        of_cases = zip(
            cases,
            rows.split(counts),
            limits.split(counts),
            thresholds.split(counts),
            disjunct.to(device).split(counts),
            strict=True,
        )
        return [Specs(r, li, t, d, len(case.unsafe)) for case, r, li, t, d in of_cases]

    def select(self, disjuncts: Tensor) -> Specs:
        """Only the rows of some disjuncts (a mask [disjuncts]); numbers stay as they are."""
        return self._chosen(disjuncts[self.disjunct])

    def counted_anew(self, disjuncts: Tensor) -> Specs:
        """Only the rows of some disjuncts (a mask [disjuncts]), which are numbered anew."""
        some, position = self.select(disjuncts), disjuncts.cumsum(0) - 1
        return replace(some, disjunct=position[some.disjunct], disjuncts=int(disjuncts.sum()))

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


def exact_in(dtype: torch.dtype, rows: Tensor) -> bool:
    """Whether rows in float64 are the same in another precision; else they are other rows there."""
    return torch.equal(rows.to(dtype).to(rows.dtype), rows)


def box_around(
    case: Case, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Interval:
    """The smallest box [1, *shape] of a dtype that contains the case's."""
    return boxes_around([case], shape, device, dtype)


def boxes_around(
    cases: Sequence[Case], shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Interval:
    """`box_around` of each case: [cases, *shape]."""
    lower, upper = (
        torch.from_numpy(np.stack(ends))
        for ends in ([case.lower for case in cases], [case.upper for case in cases])
    )
    below, above = lower.to(dtype), upper.to(dtype)
    down, up = torch.full_like(below, -torch.inf), torch.full_like(above, torch.inf)
    below = torch.where(below.double() > lower, torch.nextafter(below, down), below)
    above = torch.where(above.double() < upper, torch.nextafter(above, up), above)
    return Interval(below.reshape(-1, *shape).to(device), above.reshape(-1, *shape).to(device))


def box_within(
    case: Case, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Interval:
    """The values of a float dtype inside the case's box: a counterexample may have no others.

    Where none lies between two limits, what these round to stands in: that is nearest, and a
    checker that rounds limits accepts no others. Whether it is near enough, a confirmation says.
    """
    return boxes_within([case], shape, device, dtype)


def boxes_within(
    cases: Sequence[Case], shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Interval:
    """`box_within` of each case: [cases, *shape]."""
    kind = torch.zeros(0, dtype=dtype).numpy().dtype
    least, greatest = (np.stack(ends) for ends in zip(*(c.within for c in cases), strict=True))
    lower, upper = _rounded(least, kind, np.inf), _rounded(greatest, kind, -np.inf)
    none = lower > upper
    if np.any(none):
        with np.errstate(over="ignore"):
            first, last = (
                np.stack(ends).astype(kind)
                for ends in zip(*(case.nearest for case in cases), strict=True)
            )
        lower, upper = np.where(none, first, lower), np.where(none, last, upper)
    most = np.finfo(kind).max
    ends = (torch.from_numpy(end.clip(-most, most)).reshape(-1, *shape) for end in (lower, upper))
    return Interval(*(end.to(device) for end in ends))


def _rounded(
    values: NDArray[np.float64], kind: np.dtype[np.floating], towards: float
) -> NDArray[np.floating]:
    """The nearest values of a float dtype that do not lie on the other side."""
    with np.errstate(over="ignore"):
        rounded = values.astype(kind)
    past = rounded < values if towards > 0 else rounded > values
    return np.where(past, np.nextafter(rounded, kind.type(towards)), rounded)
