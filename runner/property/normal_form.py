"""From an and/or tree of comparisons to a Property: input boxes, each with its output DNF."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from runner.errors import InstanceError
from runner.property.logic import And, Comparison, Formula, Kind
from runner.property.model import Case, Conjunction, Property
from runner.vocabulary import Cause

# An `and` of n two-way `or` has 2**n disjuncts: refuse before memory runs out.
MAXIMUM_CONJUNCTIONS = 100_000
# Input bounds over all boxes, and matrix entries over all conjunctions.
MAXIMUM_BOUNDS = 5_000_000
MAXIMUM_ENTRIES = 50_000_000

_Interval = tuple[float, float]
_UNBOUNDED: _Interval = (-math.inf, math.inf)


@dataclass(frozen=True)
class Declarations:
    """The variables of a file: how many are input and output, and what the file calls them."""

    file: str
    inputs: int
    outputs: int
    input_name: Callable[[int], str]

    def error(self, cause: Cause, message: str, line: int | None = None) -> InstanceError:
        """An error that says where: `file:line: message`."""
        place = self.file if line is None else f"{self.file}:{line}"
        return InstanceError(cause, f"{place}: {message}")


@dataclass(frozen=True, slots=True)
class _Part:
    """One disjunct over the inputs, with the DNF over the outputs that goes with it.

    `box` maps an input's index to its interval; inputs that it leaves out are unbounded.
    """

    box: Mapping[int, _Interval]
    unsafe: tuple[tuple[Comparison, ...], ...]


def to_property(formula: Formula, declarations: Declarations) -> Property:
    """Distributes `and` over `or`; conjunctions with one input box share a Case.

    A strict bound on an input becomes the next float64 inside it, as boxes are closed. Raises
    InstanceError: MALFORMED_PROPERTY for an unbounded input or an empty box,
    UNSUPPORTED_PROPERTY for a constraint that is no box bound and for too large a union.
    """
    parts = _distribute(formula, declarations)
    if not parts:
        message = "no input satisfies all assertions together; correct the input bounds"
        raise declarations.error(Cause.MALFORMED_PROPERTY, message)
    _check_size(declarations, bounds=len(parts) * declarations.inputs)
    return Property(declarations.inputs, declarations.outputs, _cases(parts, declarations))


def _distribute(formula: Formula, declarations: Declarations) -> list[_Part]:
    """The disjuncts of a formula. Those whose input box is empty are left out."""
    if isinstance(formula, Comparison):
        return [_literals((formula,), declarations)]
    if isinstance(formula, And):
        literals = [part for part in formula.parts if isinstance(part, Comparison)]
        result = [_literals(literals, declarations)]
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


def _literals(comparisons: Iterable[Comparison], declarations: Declarations) -> _Part:
    """The conjunction of comparisons that stand side by side, whose box may not be empty."""
    box: dict[int, _Interval] = {}
    outputs: list[Comparison] = []
    satisfiable = True
    for comparison in comparisons:
        if not math.isfinite(comparison.bound):
            message = "a number is too large for float64; scale the constraint"
            raise declarations.error(Cause.MALFORMED_PROPERTY, message, comparison.line)
        if not comparison.terms:
            holds = comparison.bound > 0 or (comparison.bound == 0 and not comparison.strict)
            satisfiable = satisfiable and holds
        elif all(variable.kind is Kind.OUTPUT for variable, _ in comparison.terms):
            outputs.append(comparison)
        else:
            _tighten(box, comparison, declarations)
    return _Part(box, (tuple(outputs),) if satisfiable else ())


def _tighten(box: dict[int, _Interval], comparison: Comparison, declarations: Declarations) -> None:
    if len(comparison.terms) != 1:
        message = "not supported: a constraint that relates an input to other inputs or to "
        message += "outputs; only bounds on single inputs are"
        raise declarations.error(Cause.UNSUPPORTED_PROPERTY, message, comparison.line)
    ((variable, coefficient),) = comparison.terms
    lower, upper = box.get(variable.position, _UNBOUNDED)
    limit = comparison.bound / coefficient + 0.0  # never -0.0
    if coefficient > 0:
        upper = min(upper, math.nextafter(limit, -math.inf) if comparison.strict else limit)
    else:
        lower = max(lower, math.nextafter(limit, math.inf) if comparison.strict else limit)
    if lower > upper:
        message = f"empty input box: {declarations.input_name(variable.position)} is at least "
        message += f"{lower!r} and at most {upper!r}; correct one of the two bounds"
        raise declarations.error(Cause.MALFORMED_PROPERTY, message, comparison.line)
    box[variable.position] = (lower, upper)


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
    left: Mapping[int, _Interval], right: Mapping[int, _Interval]
) -> Mapping[int, _Interval] | None:
    """The box inside both; None when it is empty."""
    if not right:
        return left
    box = dict(left)
    for index, (lower, upper) in right.items():
        known = box.get(index, _UNBOUNDED)
        lower, upper = max(lower, known[0]), min(upper, known[1])
        if lower > upper:
            return None
        box[index] = (lower, upper)
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
    boxes: dict[tuple[_Interval, ...], dict[tuple[Comparison, ...], None]] = {}
    for part in parts:
        box = _whole_box(part.box, declarations)
        boxes.setdefault(box, {}).update(dict.fromkeys(part.unsafe))
    distinct = {disjunct for unsafe in boxes.values() for disjunct in unsafe}
    rows = sum(len(disjunct) for disjunct in distinct)
    _check_size(declarations, entries=rows * declarations.outputs)
    # One disjunct is often shared by all boxes of a union.
    lowered = {disjunct: _lower(disjunct, declarations.outputs) for disjunct in distinct}
    cases = []
    for box, unsafe in boxes.items():
        lower, upper = np.array(box, dtype=np.float64).reshape(-1, 2).T.copy()
        cases.append(Case(lower, upper, tuple(lowered[disjunct] for disjunct in unsafe)))
    return tuple(cases)


def _whole_box(box: Mapping[int, _Interval], declarations: Declarations) -> tuple[_Interval, ...]:
    for index in range(declarations.inputs):
        for limit, side in zip(box.get(index, _UNBOUNDED), ("lower", "upper"), strict=True):
            if math.isinf(limit):
                message = f"unbounded input {declarations.input_name(index)}: it has no {side} "
                message += "bound; assert one"
                raise declarations.error(Cause.MALFORMED_PROPERTY, message)
    return tuple(box[index] for index in range(declarations.inputs))


def _lower(disjunct: tuple[Comparison, ...], outputs: int) -> Conjunction:
    matrix = np.zeros((len(disjunct), outputs))
    for row, comparison in enumerate(disjunct):
        for variable, coefficient in comparison.terms:
            matrix[row, variable.position] = coefficient
    return Conjunction(
        matrix,
        np.array([comparison.bound for comparison in disjunct], dtype=np.float64),
        np.array([comparison.strict for comparison in disjunct], dtype=np.bool_),
    )
