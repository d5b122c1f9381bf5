"""From an and/or tree of comparisons to a Property: input boxes, each with its output DNF."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.property.logic import And, Comparison, Coordinate, Formula, Kind
from runner.problem.property.model import (
    Case,
    Conjunction,
    DeclaredTensor,
    InputVariable,
    Property,
)
from runner.problem.property.numbers import Exact, Limit, Limits

# An `and` of n two-way `or` has 2**n disjuncts: refuse before memory runs out.
MAXIMUM_CONJUNCTIONS = 100_000
# Input bounds over all boxes, and matrix entries over all conjunctions.
MAXIMUM_BOUNDS = 5_000_000
MAXIMUM_ENTRIES = 50_000_000

_UNBOUNDED = Limits(Limit(-math.inf, 0, 0, -math.inf), Limit(math.inf, 0, 0, math.inf))
_GREATEST = int(sys.float_info.max)


class _Bound(NamedTuple):
    """An input's lower or upper limit. It holds its comparison, whose identity stays its own so."""

    position: int
    upper: bool
    limit: Limit
    comparison: Comparison


@dataclass(frozen=True)
class Declarations:
    """The variables of a file: how many are input and output, and what the file calls them.

    `input_shape`, `output_shape`: where it declares them; `input_tensors`, `output_tensors`: where
    it declares several, or says their names; `input_variables`: where they have names and shapes.
    `bounds`: of inputs, by the identity of the comparisons that were read so far.
    """

    file: str
    inputs: int
    outputs: int
    name: Callable[[Coordinate], str]
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    input_tensors: tuple[DeclaredTensor, ...] = ()
    output_tensors: tuple[DeclaredTensor, ...] = ()
    input_variables: tuple[InputVariable, ...] = ()
    bounds: dict[int, _Bound] = field(default_factory=dict, compare=False, repr=False)

    def error(self, cause: Cause, message: str, line: int | None = None) -> InstanceError:
        """An error that says where: `file:line: message`."""
        place = self.file if line is None else f"{self.file}:{line}"
        return InstanceError(cause, f"{place}: {message}")


@dataclass(frozen=True, slots=True)
class _Part:
    """One disjunct over the inputs, with the DNF over the outputs that goes with it.

    `box` maps an input's index to its interval; inputs that it leaves out are unbounded.
    """

    box: Mapping[int, Limits]
    unsafe: tuple[tuple[Comparison, ...], ...]


def to_property(formula: Formula, declarations: Declarations) -> Property:
    """Distributes `and` over `or`; conjunctions with one input box share a Case.

    Raises InstanceError: MALFORMED_PROPERTY for an unbounded input, UNSUPPORTED_PROPERTY for a
    constraint that is no box bound and for too large a union.
    """
    parts = _distribute(formula, declarations)
    _check_size(declarations, bounds=len(parts) * declarations.inputs)
    return Property(
        inputs=declarations.inputs,
        outputs=declarations.outputs,
        cases=_cases(parts, declarations),
        empty="" if parts else _why_empty(formula, declarations),
        input_shape=declarations.input_shape,
        output_shape=declarations.output_shape,
        input_tensors=declarations.input_tensors,
        output_tensors=declarations.output_tensors,
        input_variables=declarations.input_variables,
    )


def _distribute(formula: Formula, declarations: Declarations) -> list[_Part]:
    """The disjuncts of a formula. Those whose input box is empty are left out."""
    if isinstance(formula, Comparison):
        return _literals((formula,), declarations)
    if isinstance(formula, And):
        literals = [part for part in formula.parts if isinstance(part, Comparison)]
        result = _literals(literals, declarations)
        for part in formula.parts:
            if not isinstance(part, Comparison):
                result = _both(result, _distribute(part, declarations), declarations)
        return result
    alternatives: list[_Part] = []
    for part in formula.parts:
        alternatives += _distribute(part, declarations)
    return _join_unboxed(alternatives)


def _join_unboxed(parts: list[_Part]) -> list[_Part]:
    """The same union, with all disjuncts that speak of outputs only as one."""
    boxed = [part for part in parts if part.box]
    if len(boxed) == len(parts):
        return parts
    unsafe = tuple(disjunct for part in parts if not part.box for disjunct in part.unsafe)
    return [*boxed, _Part({}, unsafe)]


def _literals(comparisons: Iterable[Comparison], declarations: Declarations) -> list[_Part]:
    """The conjunction of comparisons that stand side by side; none where its box is empty."""
    ends: tuple[dict[int, Limit], dict[int, Limit]] = {}, {}
    outputs: list[Comparison] = []
    satisfiable = True
    seen = declarations.bounds
    for comparison in comparisons:
        known = seen.get(id(comparison))
        if known is not None:
            _tighten(ends, known)
        elif not comparison.terms:
            holds = comparison.bound > 0 or (comparison.bound == 0 and not comparison.strict)
            satisfiable = satisfiable and holds
        elif all(variable.kind is Kind.OUTPUT for variable, _ in comparison.terms):
            numbers = (comparison.bound, *(coefficient for _, coefficient in comparison.terms))
            if not all(map(_fits_float64, numbers)):
                raise _too_large(comparison, declarations)
            outputs.append(comparison)
        else:
            _tighten(ends, _bound(comparison, declarations))
    box = _box(ends)
    if any(lower > upper for lower, upper in box.values()):
        return []
    return [_Part(box, (tuple(outputs),) if satisfiable else ())]


def _tighten(ends: tuple[dict[int, Limit], dict[int, Limit]], bound: _Bound) -> None:
    """The lower and the upper ends of inputs, by their numbers."""
    side = ends[bound.upper]
    limit = side.get(bound.position)
    if limit is None or (bound.limit < limit if bound.upper else bound.limit > limit):
        side[bound.position] = bound.limit


def _box(ends: tuple[dict[int, Limit], dict[int, Limit]]) -> dict[int, Limits]:
    lower, upper = ends
    if lower.keys() == upper.keys():
        return {index: Limits(limit, upper[index]) for index, limit in lower.items()}
    return {
        index: Limits(
            lower.get(index, _UNBOUNDED.lower),
            upper.get(index, _UNBOUNDED.upper),
        )
        for index in lower.keys() | upper.keys()
    }


def _bound(comparison: Comparison, declarations: Declarations) -> _Bound:
    """Of one input; what was found before is kept, as files repeat themselves."""
    if len(comparison.terms) != 1:
        names = " and ".join(declarations.name(variable) for variable, _ in comparison.terms)
        message = f"not supported: a constraint that relates {names}; of inputs, only bounds by "
        message += "numbers are"
        raise declarations.error(Cause.UNSUPPORTED_PROPERTY, message, comparison.line)
    ((variable, coefficient),) = comparison.terms
    nudge = 0 if not comparison.strict else -1 if coefficient > 0 else 1
    try:
        limit = Limit.of(_quotient(comparison.bound, coefficient), nudge)
    except OverflowError as error:
        raise _too_large(comparison, declarations) from error
    found = _Bound(variable.position, coefficient > 0, limit, comparison)
    declarations.bounds[id(comparison)] = found
    return found


def _fits_float64(number: Exact) -> bool:
    return -_GREATEST <= number <= _GREATEST


def _too_large(comparison: Comparison, declarations: Declarations) -> InstanceError:
    message = "a number is too large for float64; scale the constraint"
    return declarations.error(Cause.MALFORMED_PROPERTY, message, comparison.line)


def _quotient(number: Exact, divisor: Exact) -> Exact:
    """Most bounds are of a variable as it is, and division of fractions is slow."""
    if divisor in (1, -1):
        return number if divisor == 1 else -number
    return Fraction(number) / divisor


def _why_empty(formula: Formula, declarations: Declarations) -> str:
    """Which bounds contradict each other, where those that always hold do so."""
    ends: tuple[dict[int, Limit], dict[int, Limit]] = {}, {}
    for comparison in formula.parts if isinstance(formula, And) else ():
        if not isinstance(comparison, Comparison):
            continue
        for variable, _ in comparison.terms:
            if variable.kind is Kind.INPUT:
                _tighten(ends, _bound(comparison, declarations))
                lower, upper = _box(ends)[variable.position]
                if lower > upper:
                    message = f"no input satisfies it: {declarations.name(variable)} is to be "
                    message += f"{lower.said('at least', 'above')} and "
                    message += f"{upper.said('at most', 'below')}; correct one of the two bounds "
                    message += "if that is not meant"
                    return f"{declarations.file}:{comparison.line}: {message}"
    return f"{declarations.file}: no input satisfies all assertions together"


def _both(left: list[_Part], right: list[_Part], declarations: Declarations) -> list[_Part]:
    """The conjunction of two unions: every disjunct of one with every disjunct of the other."""
    _check_size(
        declarations,
        conjunctions=_count(left) * _count(right),
        bounds=len(right) * _bounds(left) + len(left) * _bounds(right),
    )
    result = []
    for one in left:
        for other in right:
            box = _intersection(one.box, other.box)
            if box is not None:
                unsafe = tuple(a + b for a in one.unsafe for b in other.unsafe)
                result.append(_Part(box, unsafe))
    return result


def _count(parts: list[_Part]) -> int:
    return sum(max(1, len(part.unsafe)) for part in parts)


def _bounds(parts: list[_Part]) -> int:
    return sum(len(part.box) for part in parts)


def _intersection(
    left: Mapping[int, Limits], right: Mapping[int, Limits]
) -> Mapping[int, Limits] | None:
    """The box inside both; None when it is empty."""
    if not right:
        return left
    box = dict(left)
    for index, (lower, upper) in right.items():
        known = box.get(index, _UNBOUNDED)
        lower, upper = max(lower, known.lower), min(upper, known.upper)
        if lower > upper:
            return None
        box[index] = Limits(lower, upper)
    return box


def _check_size(
    declarations: Declarations, conjunctions: int = 0, bounds: int = 0, entries: int = 0
) -> None:
    for found, maximum, what in (
        (conjunctions, MAXIMUM_CONJUNCTIONS, "conjunctions"),
        (bounds, MAXIMUM_BOUNDS, "bounds in all input boxes"),
        (entries, MAXIMUM_ENTRIES, "coefficients in all output constraints"),
    ):
        if found > maximum:
            message = f"and/or distributed, this comes to {found:,} {what}, more than the "
            message += f"supported {maximum:,}; split the property"
            raise declarations.error(Cause.UNSUPPORTED_PROPERTY, message)


def _cases(parts: list[_Part], declarations: Declarations) -> tuple[Case, ...]:
    boxes: dict[tuple[Limits, ...], dict[tuple[Comparison, ...], None]] = {}
    for part in parts:
        box = _whole_box(part.box, declarations)
        boxes.setdefault(box, {}).update(dict.fromkeys(part.unsafe))
    distinct = {disjunct for unsafe in boxes.values() for disjunct in unsafe}
    rows = sum(len(disjunct) for disjunct in distinct)
    _check_size(declarations, entries=rows * declarations.outputs)
    # One disjunct is often shared by all boxes of a union.
    lowered = {disjunct: _lower(disjunct, declarations.outputs) for disjunct in distinct}
    return tuple(
        Case.between(box, (lowered[disjunct] for disjunct in unsafe))
        for box, unsafe in boxes.items()
    )


def _whole_box(box: Mapping[int, Limits], declarations: Declarations) -> tuple[Limits, ...]:
    for index in range(declarations.inputs):
        for limit, side in zip(box.get(index, _UNBOUNDED), ("lower", "upper"), strict=True):
            if math.isinf(limit.below):
                name = declarations.name(Coordinate(Kind.INPUT, index))
                message = f"unbounded input {name}: it has no {side} bound; assert one"
                raise declarations.error(Cause.MALFORMED_PROPERTY, message)
    return tuple(box[index] for index in range(declarations.inputs))


def _lower(disjunct: tuple[Comparison, ...], outputs: int) -> Conjunction:
    """Thresholds are rounded up, so that the region loses nothing that the file calls unsafe."""
    matrix = np.zeros((len(disjunct), outputs))
    bounds: list[Exact] = []
    for row, comparison in enumerate(disjunct):
        factor = _exact_factor(comparison)
        for variable, coefficient in comparison.terms:
            matrix[row, variable.position] = float(factor * coefficient)
        bounds.append(factor * comparison.bound)
    return Conjunction(
        matrix,
        np.array([Limit.of(bound).above for bound in bounds], dtype=np.float64),
        np.array([comparison.strict for comparison in disjunct], dtype=np.bool_),
        tuple(bounds),
    )


def _exact_factor(comparison: Comparison) -> int:
    """What a row is multiplied by for float64 to hold its coefficients; 1 where nothing helps."""
    coefficients = [coefficient for _, coefficient in comparison.terms]
    factor = math.lcm(*(coefficient.denominator for coefficient in coefficients))
    if all(map(_is_float64, coefficients)) or not _fits_float64(factor * comparison.bound):
        return 1
    return factor if all(_is_float64(factor * number) for number in coefficients) else 1


def _is_float64(number: Exact) -> bool:
    return _fits_float64(number) and Fraction(float(number)) == number
