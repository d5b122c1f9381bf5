"""What a VNN-LIB file says: a union of input boxes, each with an unsafe region of outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from runner.problem.property.numbers import Exact, Limit, Limits

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Conjunction:
    """A conjunction of linear constraints on the flat output y: `matrix @ y <= rhs`.

    matrix: [constraints, outputs]; rhs: [constraints]; strict: [constraints], true where the
    file says `<` and not `<=`. Zero rows mean that every output is unsafe. `bounds`: the file's
    own numbers, which `rhs` is rounded up from; without them, `rhs` is exact.
    """

    matrix: Vector
    rhs: Vector
    strict: NDArray[np.bool_]
    bounds: tuple[Exact, ...] = ()

    def holds(self, outputs: NDArray[np.floating]) -> bool:
        """Whether y (flat, any float dtype) lies in the region, exactly and with tolerance 0.

        An output that is no finite number meets no constraint.
        """
        y = np.asarray(outputs, dtype=np.float64).reshape(-1)
        if not np.all(np.isfinite(y)):
            return not len(self.rhs)
        with np.errstate(over="ignore", invalid="ignore"):
            excess = self.matrix @ y - self.rhs
            size = np.abs(self.matrix) @ np.abs(y) + np.abs(self.rhs)
            rounding = (len(y) + 4) * np.finfo(np.float64).eps * size + np.finfo(np.float64).tiny
            clear = np.abs(excess) > rounding
        if np.any(excess[clear] > 0):
            return False
        return all(self._row_holds(int(row), y) for row in np.flatnonzero(~clear))

    def holds_in_float64(self, outputs: NDArray[np.floating]) -> bool:
        """The same as a reader finds who rounds every number, and every sum, to float64."""
        values = self.matrix @ np.asarray(outputs, dtype=np.float64).reshape(-1)
        return bool(np.all(np.where(self.strict, values < self._nearest, values <= self._nearest)))

    @cached_property
    def _nearest(self) -> Vector:
        return np.array([float(bound) for bound in self.bounds]) if self.bounds else self.rhs

    def _row_holds(self, row: int, y: Vector) -> bool:
        coefficients = self.matrix[row]
        used = np.flatnonzero(coefficients)
        value = sum(Fraction(coefficients[index]) * Fraction(y[index]) for index in used)
        bound = self.bounds[row] if self.bounds else Fraction(self.rhs[row])
        return value < bound if self.strict[row] else value <= bound


@dataclass(frozen=True)
class Case:
    """One input box and its unsafe region in DNF.

    `lower`, `upper`: flat float64, rounded outwards, so that the closed box between them holds
    all that the file allows. `limits`: the file's own; without them, `lower` and `upper` are.
    `sat` through this case: an x in the box whose output lies in one of `unsafe`. No disjunct
    means that nothing is unsafe.
    """

    lower: Vector
    upper: Vector
    unsafe: tuple[Conjunction, ...]
    limits: Sequence[Limits] = ()

    @staticmethod
    def between(limits: Sequence[Limits], unsafe: Iterable[Conjunction]) -> Case:
        """The case of a box that is given exactly."""
        lower = np.array([interval.lower.below for interval in limits], dtype=np.float64)
        upper = np.array([interval.upper.above for interval in limits], dtype=np.float64)
        return Case(lower, upper, tuple(unsafe), limits)

    @cached_property
    def within(self) -> tuple[Vector, Vector]:
        """The least and the greatest float64 in the box; crossed where there is none."""
        if not self.limits:
            return self.lower, self.upper
        least = np.array([interval.lower.above for interval in self.limits], dtype=np.float64)
        greatest = np.array([interval.upper.below for interval in self.limits], dtype=np.float64)
        return least, greatest

    @cached_property
    def nearest(self) -> tuple[Vector, Vector]:
        """The limits as a reader finds them who rounds every number to float64."""
        if not self.limits:
            return self.lower, self.upper
        ends = [(float(lower.exact), float(upper.exact)) for lower, upper in self.limits]
        lower, upper = np.array(ends, dtype=np.float64).reshape(-1, 2).T
        return lower, upper

    def limits_of(self, index: int) -> Limits:
        """The exact limits of one input."""
        if self.limits:
            return self.limits[index]
        return Limits(Limit.of(Fraction(self.lower[index])), Limit.of(Fraction(self.upper[index])))


@dataclass(frozen=True)
class DeclaredTensor:
    """An input or an output: `name` in the ONNX file, "" where the property does not say it, and
    how many values it has.
    """

    name: str
    size: int


@dataclass(frozen=True)
class InputVariable:
    """An input as the file declares it; its values lie flat in C order."""

    name: str
    shape: tuple[int, ...]


def name_of_value(variables: Sequence[InputVariable], position: int) -> str:
    """With its place in its variable; `variables` lie flat one behind the other."""
    for variable in variables:
        size = math.prod(variable.shape)
        if position < size:
            place = ",".join(str(index) for index in np.unravel_index(position, variable.shape))
            return f"{variable.name}[{place}]" if variable.shape else variable.name
        position -= size
    raise IndexError(f"there is no value {position} behind the last variable")


@dataclass(frozen=True)
class Property:
    """A union of cases over `inputs` input variables and `outputs` output variables (flat).

    Without a case no input satisfies the file; `empty` says why. `input_shape`, `output_shape`:
    where the file declares them, as VNN-LIB 2.0 does; `input_tensors`, `output_tensors`: where it
    declares several, or says their names. `input_variables`: as VNN-LIB 2.0 declares them.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]
    empty: str = ""
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    input_tensors: tuple[DeclaredTensor, ...] = ()
    output_tensors: tuple[DeclaredTensor, ...] = ()
    input_variables: tuple[InputVariable, ...] = ()

    def input_name(self, index: int) -> str:
        """What the file calls an input."""
        return name_of_value(self.input_variables, index) if self.input_variables else f"X_{index}"
