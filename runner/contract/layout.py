"""Layouts: on how many ranks each axis is spread, and which ranks go together along it.

No torch: all of this is arithmetic on numbers of ranks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from math import prod

from runner.contract.errors import UsageError

# Groups of ranks, each rank in one of them.
Partition = Sequence[Sequence[int]]

_PART = re.compile(r"(?P<word>\w+)=(?P<degree>\d+)", re.ASCII)


class Axis(StrEnum):
    """What can be spread over ranks."""

    WEIGHTS = "weights"  # each rank keeps 1/P of every Linear/Conv weight
    FEATURES = "features"  # each rank keeps the A columns of its own neurons
    SPECS = "specs"  # each rank bounds its own row blocks of each start node
    DOMAINS = "domains"  # each rank bounds its own sub-problems; rows before them, as by specs


# Ranks that exchange the most are next to each other: the last axis varies the fastest.
AXES = {"dp": Axis.DOMAINS, "sp": Axis.SPECS, "fsdp": Axis.WEIGHTS, "tp": Axis.FEATURES}


@dataclass(frozen=True)
class Layout:
    """A degree for each axis; their product is the number of ranks, which form a grid.

    `fsdp`: ranks that each keep a part of the weights; `tp`: of the neurons, with their weights;
    `sp`: groups that bound different rows; `dp`: groups that bound different rows
    as well, and then search different sub-problems.

    Raises UsageError for degrees that cannot be, or not be combined.
    """

    fsdp: int = 1
    tp: int = 1
    sp: int = 1
    dp: int = 1

    def __post_init__(self) -> None:
        for word, degree in self._degrees().items():
            if degree < 1:
                raise UsageError(f"layout: {word}={degree}: a degree is at least 1")
        if self.fsdp > 1 and self.tp > 1:
            raise UsageError(
                f"layout {self}: tp cuts weights with their neurons, so there is nothing left for "
                f"fsdp; leave one out, such as tp={self.fsdp * self.tp}"
            )

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Of `tp=2+sp=2`, in any order, also with commas; raises UsageError with the remedy."""
        degrees: dict[str, int] = {}
        for part in re.split(r"[+,]", text):
            found = _PART.fullmatch(part.strip())
            if found is None or found["word"] not in AXES:
                raise UsageError(
                    f"layout {text!r}: {part.strip()!r} is not AXIS=DEGREE; the axes are "
                    f"{', '.join(field.name for field in fields(cls))}, as in tp=2+sp=2"
                )
            if found["word"] in degrees:
                raise UsageError(f"layout {text!r}: {found['word']} stands there twice; once is it")
            degrees[found["word"]] = int(found["degree"])
        return cls(**degrees)

    def __str__(self) -> str:
        """The one spelling of a layout: what is spread, in the order of the fields."""
        return "+".join(f"{word}={d}" for word, d in self._degrees().items() if d != 1)

    @property
    def ranks(self) -> int:
        return prod(self._degrees().values())

    @property
    def axes(self) -> frozenset[Axis]:
        """Those that are spread."""
        return frozenset(axis for axis in Axis if self.degree(axis) > 1)

    def degree(self, axis: Axis) -> int:
        (word,) = (word for word, known in AXES.items() if known is axis)
        return self._degrees()[word]

    def place(self, axis: Axis, rank: int) -> int:
        """Where a rank is along an axis, from 0."""
        return rank // self._stride(axis) % self.degree(axis)

    def along(self, *axes: Axis) -> Partition:
        """Ranks that differ in their places along these axes alone."""
        return self.beside(*(axis for axis in Axis if axis not in axes))

    def beside(self, *axes: Axis) -> Partition:
        """Ranks that have the same place along each of these axes."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.ranks):
            places = tuple(self.place(axis, rank) for axis in axes)
            groups.setdefault(places, []).append(rank)
        return list(groups.values())

    def _stride(self, axis: Axis) -> int:
        """From a rank to the next along an axis."""
        order = list(AXES.values())
        return prod(self.degree(later) for later in order[order.index(axis) + 1 :])

    def _degrees(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
