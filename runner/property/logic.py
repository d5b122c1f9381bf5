"""What both VNN-LIB versions lower to: and/or trees of linear comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from runner.vocabulary import StrEnum

# Both parsers refuse deeper files: trees are walked by recursion, and Python's stack is finite.
MAXIMUM_NESTING = 200


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


class Variable(NamedTuple):
    """One scalar of the network's input or output, by its flat row-major position."""

    kind: Kind
    position: int


@dataclass(frozen=True, slots=True)
class Linear:
    """The sum of coefficient * variable over `terms`, plus `constant`."""

    terms: Mapping[Variable, float] = field(default_factory=dict)
    constant: float = 0.0

    def __add__(self, other: Linear) -> Linear:
        terms = dict(self.terms)
        for variable, coefficient in other.terms.items():
            terms[variable] = terms.get(variable, 0.0) + coefficient
        return Linear(terms, self.constant + other.constant)

    def __sub__(self, other: Linear) -> Linear:
        return self + other.scaled(-1.0)

    def scaled(self, factor: float) -> Linear:
        terms = {variable: factor * value for variable, value in self.terms.items()}
        return Linear(terms, factor * self.constant)


def product(factors: Iterable[Linear]) -> Linear | None:
    """The product of linear forms; None when it is not linear."""
    result = Linear(constant=1.0)
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

    No coefficient is zero. `line` is where the file says so; it does not count for equality.
    """

    terms: tuple[tuple[Variable, float], ...]
    bound: float
    strict: bool
    line: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class And:
    """All of the parts hold; true when there are none."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the parts holds; false when there are none."""

    parts: tuple[Formula, ...]


Formula: TypeAlias = "Comparison | And | Or"


def compare(left: Linear, relation: Relation, right: Linear, line: int) -> Formula:
    """`left relation right` in terms of `<=` and `<` alone."""
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
        terms[variable] = terms.get(variable, 0.0) - coefficient
    nonzero = tuple(term for term in terms.items() if term[1])
    return Comparison(nonzero, right.constant - left.constant, strict, line)


def conjunction(parts: Iterable[Formula]) -> Formula:
    """The parts joined by `and`, with nested `and` flattened."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, And) else (part,))]
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def disjunction(parts: Iterable[Formula]) -> Formula:
    """The parts joined by `or`, with nested `or` flattened."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, Or) else (part,))]
    return flat[0] if len(flat) == 1 else Or(tuple(flat))
