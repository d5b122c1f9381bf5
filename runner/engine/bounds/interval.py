"""Boxes of values: what every start node's bounds are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.rounding import half_width, outer, unit

# Values that vary by no more than this, beside their size and 1, are fixed; and by no more than so
# many roundings of their size: a number between two neighbours that hold it.
FIXED, FIXED_ROUNDINGS = 1e-9, 8


@dataclass(frozen=True)
class Interval:
    """lower, upper: [B, *shape], lower <= upper; they hold in real arithmetic.

    sums: of a node whose operator rounds, |W| |x| + |b| over the box for each of this rank's own
    neurons, [B, own neurons]; see runner.engine.bounds.rounding. They stay in the precision that
    they were computed in. floor: [B], what underflow adds. off: [B, own neurons], what parameters
    that are not the file's own may change of each neuron.
    """

    lower: Tensor
    upper: Tensor
    sums: Tensor | None = None
    floor: Tensor | None = None
    off: Tensor | None = None

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self.lower, self.upper

    @property
    def centre(self) -> Tensor:
        return (self.upper + self.lower) / 2

    @property
    def radius(self) -> Tensor:
        """Around `centre`, rounded up."""
        return self.ball[1]

    @property
    def ball(self) -> tuple[Tensor, Tensor]:
        """`centre` and `radius`."""
        centre = self.centre
        return centre, half_width(self.lower, self.upper, centre)

    @property
    def size(self) -> Tensor:
        """The greatest absolute value."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @property
    def varying(self) -> Tensor:
        """Which values are not fixed; what is no number is not. [B, *shape]."""
        fixed = FIXED * (1 + self.size) + FIXED_ROUNDINGS * unit(self.lower.dtype) * self.size
        return ~(self.upper - self.lower <= fixed)

    def intersect(self, other: Interval) -> Interval:
        """Both hold, so the tighter of each side holds."""
        return self.between(
            torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper)
        )

    def between(self, lower: Tensor, upper: Tensor) -> Interval:
        """Other limits of the same node."""
        return Interval(lower, upper, self.sums, self.floor, self.off)

    def part(self, index: int) -> Interval:
        """Over one box of the batch, [1, *shape]."""
        at = slice(index, index + 1)
        sums, floor, off = (
            None if each is None else each[at] for each in (self.sums, self.floor, self.off)
        )
        return Interval(self.lower[at], self.upper[at], sums, floor, off)

    @staticmethod
    def joined(parts: Sequence[Interval]) -> Interval:
        """Of the same node over several batches, as one."""
        ends = torch.cat([p.lower for p in parts]), torch.cat([p.upper for p in parts])
        return Interval(
            *ends,
            _all_joined([p.sums for p in parts]),
            _all_joined([p.floor for p in parts]),
            _all_joined([p.off for p in parts]),
        )

    def reshape(self, *shape: int) -> Interval:
        return self.between(self.lower.reshape(shape), self.upper.reshape(shape))

    def nearest(self, dtype: torch.dtype) -> Interval:
        """Rounded to nearest: for searching alone."""
        return Interval(self.lower.to(dtype), self.upper.to(dtype))

    def outer(self, dtype: torch.dtype) -> Interval:
        """Rounded outwards."""
        if self.lower.dtype is dtype:
            return self
        return self.between(*outer(self.lower, self.upper, dtype))

    def to(self, dtype: torch.dtype) -> Interval:
        """In the same or a higher precision. Raises ValueError otherwise: limits would move in."""
        if torch.finfo(dtype).bits < torch.finfo(self.lower.dtype).bits:
            raise ValueError(f"limits of {self.lower.dtype} do not fit into {dtype}")
        return Interval(
            self.lower.to(dtype),
            self.upper.to(dtype),
            self.sums,
            None if self.floor is None else self.floor.to(dtype),
            self.off,
        )


def _all_joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) == len(parts) else None
