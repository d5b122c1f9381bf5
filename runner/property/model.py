"""What a VNN-LIB file says: a union of input boxes, each with an unsafe region of outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Conjunction:
    """A conjunction of linear constraints on the flat output y: `matrix @ y <= rhs`.

    matrix: [constraints, outputs]; rhs: [constraints]; strict: [constraints], true where the
    file says `<` and not `<=`. Zero rows mean that every output is unsafe.
    """

    matrix: Vector
    rhs: Vector
    strict: NDArray[np.bool_]

    def holds(self, outputs: NDArray[np.floating]) -> bool:
        """Whether y (flat, any float dtype) lies in the region, with tolerance 0."""
        values = self.matrix @ np.asarray(outputs, dtype=np.float64).reshape(-1)
        return bool(np.all(np.where(self.strict, values < self.rhs, values <= self.rhs)))


@dataclass(frozen=True)
class Case:
    """One input box (flat float64 `lower`, `upper`, closed) and its unsafe region in DNF.

    `sat` through this case: an x in the box whose output lies in one of `unsafe`. No disjunct
    means that nothing is unsafe.
    """

    lower: Vector
    upper: Vector
    unsafe: tuple[Conjunction, ...]


@dataclass(frozen=True)
class Property:
    """A union of cases over `inputs` input variables and `outputs` output variables (flat)."""

    inputs: int
    outputs: int
    cases: tuple[Case, ...]
