"""What both VNN-LIB versions lower to: and/or trees of linear comparisons, in exact numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from runner.problem.property.numbers import Exact

# Both parsers refuse deeper files: trees are walked by recursion, and Python's stack is finite.
MAXIMUM_NESTING = 200
CUT_OFF = "the file ends inside this command: it is cut off; download it again"


class Kind(StrEnum):
    """Which side of the network a variable is on."""

    INPUT = "input"
    OUTPUT = "output"


class Relation(StrEnum):
    """Comparison operators, as both versions write them (`=` is 1.0's `==`)."""

    LESS_EQUAL = "<="
    LESS = "<"
    GREATER_EQUAL = ">="
    GREATER = ">"
    EQUAL = "=="
    NOT_EQUAL = "!="


class Coordinate(NamedTuple):
    """One scalar of the network's input or output, by its flat row-major position."""

    kind: Kind
    position: int


@dataclass(frozen=True, slots=True)
class Linear:
    """The sum of coefficient * variable over `terms`, plus `constant`."""

    terms: Mapping[Coordinate, Exact] = field(default_factory=dict)
    constant: Exact = 0

    def __add__(self, other: Linear) -> Linear:
        terms = dict(self.terms)
        for variable, coefficient in other.terms.items():
            terms[variable] = terms.get(variable, 0) + coefficient
        return Linear(terms, self.constant + other.constant)

    def __sub__(self, other: Linear) -> Linear:
        return self + other.scaled(-1)

    def scaled(self, factor: Exact) -> Linear:
        terms = {variable: factor * value for variable, value in self.terms.items()}
        return Linear(terms, factor * self.constant)


def product(factors: Iterable[Linear]) -> Linear | None:
    """The product of linear forms; None when it is not linear."""
    result = Linear(constant=1)
    for factor in factors:
        if not factor.terms:
            result = result.scaled(factor.constant)
        elif not result.terms:
            result = factor.scaled(result.constant)
        else:
            return None
    return result


@dataclass(frozen=True, slots=True)
class Comparison:
    """The sum of coefficient * variable over `terms` is at most `bound` (below it, if strict).

    No coefficient is zero. `line` is where the file says so first; it does not count for equality.
    """

    terms: tuple[tuple[Coordinate, Exact], ...]
    bound: Exact
    strict: bool
    line: int = field(compare=False)

    def __hash__(self) -> int:
        # Of fractions, it would take longer than all else; most coefficients are whole.
        return hash((self.terms, float(self.bound), self.strict))


@dataclass(frozen=True, slots=True)
class And:
    """All of the parts hold; true when there are none."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the parts holds; false when there are none."""

    parts: tuple[Formula, ...]


Formula: TypeAlias = "Comparison | And | Or"


def compare(operands: Sequence[Linear], relation: Relation, line: int) -> Formula:
    """Each operand in `relation` to the next, in terms of `<=` and `<` alone."""
    pairs = [_compared(left, relation, right, line) for left, right in pairwise(operands)]
    return pairs[0] if len(pairs) == 1 else conjunction(pairs)


def _compared(left: Linear, relation: Relation, right: Linear, line: int) -> Formula:
    match relation:
        case Relation.LESS_EQUAL:
            return _at_most(left, right, False, line)
        case Relation.LESS:
            return _at_most(left, right, True, line)
        case Relation.GREATER_EQUAL:
            return _at_most(right, left, False, line)
        case Relation.GREATER:
            return _at_most(right, left, True, line)
        case Relation.EQUAL:
            return And((_at_most(left, right, False, line), _at_most(right, left, False, line)))
        case Relation.NOT_EQUAL:
            return Or((_at_most(left, right, True, line), _at_most(right, left, True, line)))


def _at_most(left: Linear, right: Linear, strict: bool, line: int) -> Comparison:
    terms = dict(left.terms)
    for variable, coefficient in right.terms.items():
        terms[variable] = terms.get(variable, 0) - coefficient
    nonzero = tuple(term for term in terms.items() if term[1])
    # Most have one constant, and a difference of fractions is slow.
    both = left.constant and right.constant
    bound = right.constant - left.constant if both else right.constant or -left.constant
    return Comparison(nonzero, bound, strict, line)


def negation(formula: Formula) -> Formula:
    """What holds where the formula does not."""
    match formula:
        case Comparison(terms, bound, strict, line):
            opposite = tuple((variable, -coefficient) for variable, coefficient in terms)
            return Comparison(opposite, -bound, not strict, line)
        case And(parts):
            return disjunction(map(negation, parts))
        case Or(parts):
            return conjunction(map(negation, parts))


def conjunction(parts: Iterable[Formula]) -> Formula:
    """The parts joined by `and`, with nested `and` flattened."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, And) else (part,))]
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def disjunction(parts: Iterable[Formula]) -> Formula:
    """The parts joined by `or`, with nested `or` flattened."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, Or) else (part,))]
    return flat[0] if len(flat) == 1 else Or(tuple(flat))
