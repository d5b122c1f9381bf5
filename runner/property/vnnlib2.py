"""VNN-LIB 2.0: the AST of the `vnnlib` package, lowered to the tree that 1.0 lowers to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import reduce
from operator import add, sub

import numpy as np
import vnnlib

from runner.errors import InstanceError
from runner.property.logic import (
    MAXIMUM_NESTING,
    Formula,
    Kind,
    Linear,
    Relation,
    Variable,
    compare,
    conjunction,
    disjunction,
    product,
)
from runner.property.model import Property
from runner.property.normal_form import Declarations, to_property
from runner.vocabulary import Cause

_EXPONENT_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?[eE][+-]?\d+(?![\w.])")
_RELATIONS: dict[type[vnnlib.Comparison], Relation] = {
    vnnlib.LessEqual: Relation.LESS_EQUAL,
    vnnlib.LessThan: Relation.LESS,
    vnnlib.GreaterEqual: Relation.GREATER_EQUAL,
    vnnlib.GreaterThan: Relation.GREATER,
    vnnlib.Equal: Relation.EQUAL,
    vnnlib.NotEqual: Relation.NOT_EQUAL,
}
_KINDS = {vnnlib.SymbolKind.Input: Kind.INPUT, vnnlib.SymbolKind.Output: Kind.OUTPUT}
_REAL_TYPES = ("Real", "F16", "F32", "F64")


def parse(text: str, file: str) -> Property:
    """The property that a 2.0 query says. `file` is its name in messages.

    Raises InstanceError (MALFORMED_PROPERTY, UNSUPPORTED_PROPERTY) with file and, where the
    package tells it, line.
    """
    _check_readable(text, file)
    query = _query(_EXPONENT_NUMBER.sub(_without_exponent, text), file)
    network = _network(query, file)
    inputs, outputs = network.inputs[0], network.outputs[0]

    def input_name(index: int) -> str:
        place = ",".join(str(i) for i in np.unravel_index(index, inputs.shape))
        return f"{inputs.name}[{place}]" if inputs.shape else str(inputs.name)

    declarations = Declarations(file, math.prod(inputs.shape), math.prod(outputs.shape), input_name)
    lowering = _Lowering(file)
    formulas = [lowering.formula(assertion.expr) for assertion in query.assertions]
    return to_property(conjunction(formulas), declarations)


def _check_readable(text: str, file: str) -> None:
    # The package stops at a NUL as if the file ended there, and overflows its stack when nested.
    if "\0" in text:
        message = f"{file}: not a text file (it has a NUL character); is it really VNN-LIB?"
        raise InstanceError(Cause.MALFORMED_PROPERTY, message)
    depth = 0
    for parenthesis in re.findall(r"[()]", re.sub(r";[^\n]*", "", text)):
        depth += 1 if parenthesis == "(" else -1
        if depth > MAXIMUM_NESTING:
            message = f"{file}: not supported: nested deeper than {MAXIMUM_NESTING}"
            raise InstanceError(Cause.UNSUPPORTED_PROPERTY, message)


def _without_exponent(number: re.Match[str]) -> str:
    """The same float64 in the only notation that the package's grammar has: 1e-3 is 0.001."""
    value = float(number[0])
    if math.isinf(value):
        return number[0]
    digits = format(Decimal(repr(value)), "f")
    return digits if "." in digits else digits + ".0"


def _query(text: str, file: str) -> vnnlib.Query:
    try:
        return vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException as error:
        message = f"{file}{_explanation(str(error))}"
        raise InstanceError(Cause.MALFORMED_PROPERTY, message) from error
    except (IndexError, ValueError) as error:
        # The package reads numbers with std::stoll and std::stod, whose exceptions come through.
        message = f"{file}: a number is outside the 64-bit range; write one that is inside"
        raise InstanceError(Cause.MALFORMED_PROPERTY, message) from error


def _explanation(report: str) -> str:
    """`:line: message` from what the package says: a line of text, or JSON with several errors."""
    try:
        first = json.loads(report)["errors"][0]
    except (json.JSONDecodeError, KeyError, IndexError):
        line = re.search(r"line (\d+)", report)
        place = f":{line[1]}" if line else ""
        return f"{place}: {report}; correct the file, or download it again"
    return f":{first['line']}: {first['message']}: {first['offendingSymbol']}. {first['hint']}"


def _network(query: vnnlib.Query, file: str) -> vnnlib.Network:
    """The only network, which has one real input and one real output."""
    networks = query.networks
    names = ", ".join(network.name for network in networks)
    if len(networks) != 1:
        raise _unsupported(file, f"{len(networks)} networks ({names}); only one is")
    network = networks[0]
    for what, variables in (("input", network.inputs), ("output", network.outputs)):
        if len(variables) != 1:
            raise _unsupported(file, f"{len(variables)} {what} variables; only one is")
        if variables[0].dtype.name not in _REAL_TYPES:
            dtype = variables[0].dtype.name
            raise _unsupported(file, f"{what} {variables[0].name} of type {dtype}; only reals are")
    if network.hidden:
        raise _unsupported(file, f"hidden variable {network.hidden[0].name}")
    return network


class _Lowering:
    """Walks the package's AST. Lines are known at variables and literals only."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.line = 1

    def formula(self, node: vnnlib.BoolExpr) -> Formula:
        match node:
            case vnnlib.Comparison():
                left, right = self._linear(node.lhs), self._linear(node.rhs)
                return compare(left, _RELATIONS[type(node)], right, self.line)
            case vnnlib.And():
                return conjunction([self.formula(part) for part in node.args])
            case vnnlib.Or():
                return disjunction([self.formula(part) for part in node.args])
            case _:
                raise _unsupported(self.file, f"formula {node}")

    def _linear(self, node: vnnlib.ArithExpr) -> Linear:
        match node:
            case vnnlib.Var():
                self.line = node.line
                index = _flat_index(node.indices, node.shape)
                return Linear({Variable(_KINDS[node.kind], index): 1.0})
            case vnnlib.Literal():
                self.line = node.line
                return Linear(constant=float(node.lexeme))
            case vnnlib.Negate():
                return self._linear(node.expr).scaled(-1.0)
            case vnnlib.Plus():
                return reduce(add, [self._linear(part) for part in node.args])
            case vnnlib.Minus():
                rest = [self._linear(part) for part in node.rest]
                return reduce(sub, rest, self._linear(node.head))
            case vnnlib.Multiply():
                result = product([self._linear(factor) for factor in node.args])
                if result is None:
                    message = "a product of variables; only linear constraints are"
                    raise _unsupported(f"{self.file}:{self.line}", message)
                return result
            case _:
                raise _unsupported(self.file, f"expression {node}")


def _flat_index(indices: Sequence[int], shape: Sequence[int]) -> int:
    flat = 0
    for index, length in zip(indices, shape, strict=True):
        flat = flat * length + index
    return flat


def _unsupported(place: str, what: str) -> InstanceError:
    return InstanceError(Cause.UNSUPPORTED_PROPERTY, f"{place}: not supported: {what}")
