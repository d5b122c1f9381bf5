"""A case of a property as tensors: rows to bound, thresholds, and the box in a float dtype."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.bounds.interval import Interval
from runner.property.model import Case


@dataclass(frozen=True)
class Specs:
    """Rows [S, outputs], thresholds [S] and the disjunct [S] that each row belongs to.

    A disjunct is excluded as soon as one of its rows is proved greater than its threshold.
    """

    rows: Tensor
    thresholds: Tensor
    disjunct: Tensor
    disjuncts: int

    @staticmethod
    def of(case: Case, device: torch.device) -> Specs:
        sizes = [len(conjunction.rhs) for conjunction in case.unsafe]
        outputs = case.unsafe[0].matrix.shape[1] if case.unsafe else 0
        matrix = np.concatenate([c.matrix for c in case.unsafe] or [np.zeros((0, outputs))])
        rhs = np.concatenate([c.rhs for c in case.unsafe] or [np.zeros(0)])
        disjunct = torch.repeat_interleave(
            torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.long)
        )
        return Specs(
            torch.from_numpy(matrix).to(device),
            torch.from_numpy(rhs).to(device),
            disjunct.to(device),
            len(sizes),
        )

    def select(self, disjuncts: Tensor) -> Specs:
        """Only the rows of some disjuncts (a mask [disjuncts]); numbers stay as they are."""
        keep = disjuncts[self.disjunct]
        return Specs(self.rows[keep], self.thresholds[keep], self.disjunct[keep], self.disjuncts)

    def part(self, start: int, stop: int) -> Specs:
        """Only rows start to stop; numbers stay as they are."""
        return Specs(
            self.rows[start:stop],
            self.thresholds[start:stop],
            self.disjunct[start:stop],
            self.disjuncts,
        )

    def margins(self, bounds: Tensor) -> Tensor:
        """Of lower bounds [S]: each disjunct's best margin [disjuncts], -inf without rows."""
        margins = bounds.new_full((self.disjuncts,), -torch.inf)
        return margins.scatter_reduce(0, self.disjunct, bounds - self.thresholds, "amax")


def box_around(case: Case, shape: tuple[int, ...], device: torch.device) -> Interval:
    """The smallest float32 box [1, *shape] that contains the case's float64 box."""
    lower, upper = case.lower.astype(np.float32), case.upper.astype(np.float32)
    lower = np.where(lower > case.lower, np.nextafter(lower, np.float32(-np.inf)), lower)
    upper = np.where(upper < case.upper, np.nextafter(upper, np.float32(np.inf)), upper)
    return _interval(lower, upper, shape, device)


def box_within(
    case: Case, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Interval:
    """The values of a float dtype inside the case's box: a counterexample may have no others.

    Where none lies between two limits, what these round to stands in: that is nearest, and a
    checker that rounds limits accepts no others. Whether it is near enough, a confirmation says.
    """
    kind = torch.zeros(0, dtype=dtype).numpy().dtype
    least, greatest = case.within
    lower, upper = _rounded(least, kind, np.inf), _rounded(greatest, kind, -np.inf)
    none = lower > upper
    if np.any(none):
        with np.errstate(over="ignore"):
            first, last = (limit.astype(kind) for limit in case.nearest)
        lower, upper = np.where(none, first, lower), np.where(none, last, upper)
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
