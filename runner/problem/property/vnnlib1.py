"""VNN-LIB 1.0: the SMT-LIB fragment with constants X_0, X_1, … and Y_0, Y_1, …"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from operator import add, sub

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.property.logic import (
    CUT_OFF,
    MAXIMUM_NESTING,
    And,
    Comparison,
    Coordinate,
    Formula,
    Kind,
    Linear,
    Or,
    Relation,
    compare,
    conjunction,
    disjunction,
    negation,
    product,
)
from runner.problem.property.model import Property
from runner.problem.property.normal_form import Declarations, to_property
from runner.problem.property.numbers import OutOfRangeError, exact

# A group without brackets in it, on one line, is one token: files consist of comparisons.
_TOKEN = re.compile(r";[^\n]*|\n|\([^\s();]+(?: [^\s();]+)+\)|[()]|[^\s();]+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_VARIABLE = re.compile(r"([XY])_(0|[1-9]\d*)", re.ASCII)
_KINDS = {"X": Kind.INPUT, "Y": Kind.OUTPUT}
_LETTERS = {kind: letter for letter, kind in _KINDS.items()}
_RELATIONS = {relation.value: relation for relation in Relation} | {"=": Relation.EQUAL}
_CONNECTIVES: dict[str, Callable[[list[Formula]], Formula]] = {
    "and": conjunction,
    "or": disjunction,
}
_ARITHMETIC = ("+", "-", "*", "/")
_OPERATORS = (*_CONNECTIVES, "not", *_RELATIONS, *_ARITHMETIC)
_COMMANDS = ("declare-const", "declare-fun", "assert")
# What SMT-LIB wants around a question, and what asks it.
_IGNORED = ("vnnlib-version", "set-logic", "set-info", "set-option", "get-model")
_ASKING = ("check-sat", "exit")

_Item = str | Linear | Comparison | And | Or | None


def parse(text: str, file: str) -> Property:
    """The property that a 1.0 file says. `file` is its name in messages.

    Raises InstanceError (MALFORMED_PROPERTY, UNSUPPORTED_PROPERTY) with file and line.
    """
    reader = _Reader(file)
    reader.read(text)
    inputs, outputs = reader.count(Kind.INPUT), reader.count(Kind.OUTPUT)
    return to_property(conjunction(reader.assertions), Declarations(file, inputs, outputs, _name))


def _name(variable: Coordinate) -> str:
    return f"{_LETTERS[variable.kind]}_{variable.position}"


class _Reader:
    """Shift-reduce in one pass: each closed parenthesis becomes a formula or a linear form."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.line = 1
        self.assertions: list[Formula] = []
        self._symbols: dict[str, Linear] = {}
        self._groups: dict[str, _Item] = {}  # what was read before, as files repeat themselves
        self._declared: dict[Kind, set[int]] = {kind: set() for kind in Kind}
        self._asked = ""

    def read(self, text: str) -> None:
        open_groups: list[list[_Item]] = []
        items: list[_Item] = []
        begin = 0
        for token in _TOKEN.findall(text):
            if token == "\n":
                self.line += 1
            elif token == "(":
                begin = begin if open_groups else self.line
                open_groups.append(items)
                items = []
                self._check_depth(len(open_groups))
            elif token == ")":
                if not open_groups:
                    raise self._malformed("unbalanced ); remove it, or add its (")
                value = self._reduce(items, top_level=len(open_groups) == 1)
                items = open_groups.pop()
                items.append(value)
            elif token[0] == "(":
                items.append(self._group(token, depth=len(open_groups)))
            elif token[0] != ";":
                if not open_groups:
                    raise self._malformed(
                        f"{token!r} stands outside of any command; is it really VNN-LIB?"
                    )
                items.append(token)
        if open_groups:
            self.line = begin
            raise self._malformed(CUT_OFF)

    def _group(self, token: str, depth: int) -> _Item:
        """A group without brackets in it, and inside so many others."""
        if token in self._groups and depth < MAXIMUM_NESTING:
            return self._groups[token]
        self._check_depth(depth + 1)
        value = self._reduce([*token[1:-1].split(" ")], top_level=not depth)
        if depth:
            self._groups[token] = value
        return value

    def _check_depth(self, depth: int) -> None:
        if depth > MAXIMUM_NESTING:
            raise self._unsupported(f"nested deeper than {MAXIMUM_NESTING}")

    def count(self, kind: Kind) -> int:
        """How many variables of a kind are declared; their indices have to be contiguous."""
        indices = self._declared[kind]
        missing = next(index for index in range(len(indices) + 1) if index not in indices)
        if missing < len(indices) or not indices:
            name = _name(Coordinate(kind, missing))
            raise InstanceError(
                Cause.MALFORMED_PROPERTY,
                f"{self.file}: {name} is not declared; declare it, or download the whole file",
            )
        return len(indices)

    def _reduce(self, items: list[_Item], top_level: bool) -> _Item:
        if not items and not top_level:
            # `()` stands in (declare-fun X_0 () Real) and nowhere else.
            return None
        if not items or not isinstance(items[0], str):
            message = "an operator or a command is expected after (; remove superfluous brackets"
            raise self._malformed(message)
        head, operands = items[0], items[1:]
        if top_level:
            self._command(head, operands)
            return None
        if head in _RELATIONS:
            relation = _RELATIONS[head]
            most = 2 if relation is Relation.NOT_EQUAL else None
            return compare(self._numbers(head, operands, 2, most), relation, self.line)
        if head in _CONNECTIVES:
            return _CONNECTIVES[head](self._formulas(head, operands))
        if head == "not":
            if len(operands) != 1:
                raise self._malformed(f"not takes 1 operand, not {len(operands)}")
            return negation(self._formulas(head, operands)[0])
        if head in _ARITHMETIC:
            return self._arithmetic(head, self._numbers(head, operands, 2 if head == "/" else 1))
        if head in _COMMANDS:
            raise self._malformed(f"{head} inside a command; close that one with ) before it")
        raise self._unsupported(f"operator {head!r}; only {', '.join(_OPERATORS)} are")

    def _command(self, head: str, operands: list[_Item]) -> None:
        if self._asked and head in _COMMANDS:
            raise self._malformed(f"{head} behind {self._asked}; a property asks one question")
        match head, operands:
            case ("declare-const", [str(name), "Real"]) | (
                "declare-fun",
                [str(name), None, "Real"],
            ):
                self._declare(name)
            case ("assert", [_]):
                self.assertions += self._formulas(head, operands)
            case ("declare-const" | "declare-fun", _):
                raise self._malformed(f"expected ({head} X_0 Real) or ({head} Y_0 Real)")
            case ("assert", _):
                raise self._malformed("assert takes one formula")
            case _ if head in _ASKING:
                self._asked = head
            case _ if head not in _IGNORED:
                raise self._unsupported(f"command {head!r}; only {', '.join(_COMMANDS)} are")

    def _declare(self, name: str) -> None:
        match = _VARIABLE.fullmatch(name)
        if match is None:
            raise self._malformed(f"variable {name!r} is not named X_0, X_1, … or Y_0, Y_1, …")
        kind, index = _KINDS[match[1]], int(match[2])
        self._declared[kind].add(index)
        self._symbols[name] = Linear({Coordinate(kind, index): 1})

    def _formulas(self, head: str, operands: list[_Item]) -> list[Formula]:
        formulas = [item for item in operands if isinstance(item, Comparison | And | Or)]
        if not formulas or len(formulas) != len(operands):
            raise self._malformed(f"{head} takes comparisons, (and …), (or …) or (not …)")
        return formulas

    def _numbers(
        self, head: str, operands: list[_Item], least: int, most: int | None = None
    ) -> list[Linear]:
        if len(operands) < least or (most is not None and len(operands) > most):
            at_least = "" if least == most else "at least "
            raise self._malformed(f"{head} takes {at_least}{least} operands, not {len(operands)}")
        return [self._number(item) for item in operands]

    def _number(self, item: _Item) -> Linear:
        if isinstance(item, Linear):
            return item
        if not isinstance(item, str):
            raise self._malformed("a number or a variable is expected, not a formula")
        known = self._symbols.get(item)
        if known is not None:
            return known
        if _NOT_FINITE.fullmatch(item):
            raise self._malformed(f"{item!r} is not a finite number; write one, or leave it out")
        if not _NUMBER.fullmatch(item):
            message = f"{item!r} is neither a declared variable nor a number; declare or correct it"
            raise self._malformed(message)
        try:
            # Files repeat their numbers.
            self._symbols[item] = Linear(constant=exact(item))
        except OutOfRangeError as error:
            raise self._malformed(str(error)) from error
        return self._symbols[item]

    def _arithmetic(self, head: str, operands: list[Linear]) -> Linear:
        if head == "+":
            return reduce(add, operands)
        if head == "-":
            return reduce(sub, operands) if len(operands) > 1 else operands[0].scaled(-1)
        if head == "/":
            return reduce(self._quotient, operands)
        result = product(operands)
        if result is None:
            raise self._unsupported("a product of variables; only linear constraints are")
        return result

    def _quotient(self, dividend: Linear, divisor: Linear) -> Linear:
        if divisor.terms:
            raise self._unsupported("a division by a variable; only linear constraints are")
        if not divisor.constant:
            raise self._malformed("a division by 0; correct it")
        return dividend.scaled(1 / Fraction(divisor.constant))

    def _malformed(self, message: str) -> InstanceError:
        return InstanceError(Cause.MALFORMED_PROPERTY, f"{self.file}:{self.line}: {message}")

    def _unsupported(self, what: str) -> InstanceError:
        message = f"{self.file}:{self.line}: not supported: {what}"
        return InstanceError(Cause.UNSUPPORTED_PROPERTY, message)
