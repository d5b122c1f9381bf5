"""VNN-LIB 2.0: the AST of the `vnnlib` package, lowered to the tree that 1.0 lowers to."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import reduce
from itertools import accumulate
from operator import add, sub

import vnnlib

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.property.declared import Network
from runner.problem.property.declared import Variable as Declared
from runner.problem.property.logic import (
    CUT_OFF,
    MAXIMUM_NESTING,
    Coordinate,
    Formula,
    Kind,
    Linear,
    Relation,
    compare,
    conjunction,
    disjunction,
    product,
)
from runner.problem.property.model import (
    DeclaredTensor,
    InputVariable,
    Property,
    name_of_value,
)
from runner.problem.property.normal_form import Declarations, to_property
from runner.problem.property.numbers import OutOfRangeError, exact

_COMMENT = re.compile(r";[^\n]*")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?([eE][+-]?\d+)?(?![\w.])", re.ASCII)
_SYNTAX = re.compile(r"Parse error: syntax error at line (\d+), column (\d+): '(.*)'", re.DOTALL)
_RELATIONS: dict[type[vnnlib.Comparison], Relation] = {
    vnnlib.LessEqual: Relation.LESS_EQUAL,
    vnnlib.LessThan: Relation.LESS,
    vnnlib.GreaterEqual: Relation.GREATER_EQUAL,
    vnnlib.GreaterThan: Relation.GREATER,
    vnnlib.Equal: Relation.EQUAL,
    vnnlib.NotEqual: Relation.NOT_EQUAL,
}
_KINDS = {vnnlib.SymbolKind.Input: Kind.INPUT, vnnlib.SymbolKind.Output: Kind.OUTPUT}
_TYPED = re.compile(r"\(\s*declare-(input|output)\s+(\S+)\s+([^\s()\[\]\"]+)")
# A declaration with the name of a tensor behind its shape, which the package's grammar lacks.
_NAMED = re.compile(
    r"(\(\s*declare-(?:input|output)\s+(\S+)\s+[^\s()\[\]\"]+\s*\[[^\[\]]*\]\s*)\"([^\"\n]*)\""
)
_REAL_TYPES = ("real", "float16", "float32", "float64")


def parse(text: str, file: str) -> Property:
    """The property that a 2.0 query says. `file` is its name in messages.

    Raises InstanceError (MALFORMED_PROPERTY, UNSUPPORTED_PROPERTY) with file and, where the
    package tells it, line.
    """
    _check_readable(text, file)
    # Line by line the same, without what the package need not see.
    code = _COMMENT.sub("", text)
    tensors = {found[2]: found[3] for found in _NAMED.finditer(code)}
    code = _without_tensors(code)
    _check_types(code, file)
    query = _query(_plain_numbers(code, file), code, file)
    network = _network(query, file)
    inputs, outputs = _Side(network.inputs, tensors), _Side(network.outputs, tensors)
    sides = {Kind.INPUT: inputs, Kind.OUTPUT: outputs}
    declarations = Declarations(
        file,
        inputs.size,
        outputs.size,
        lambda variable: sides[variable.kind].name(variable.position),
        inputs.shape,
        outputs.shape,
        inputs.tensors,
        outputs.tensors,
        inputs.variables,
    )
    lowering = _Lowering(file, {**inputs.starts, **outputs.starts})
    formulas = [lowering.formula(assertion.expr) for assertion in query.assertions]
    return to_property(conjunction(formulas), declarations)


class _Side:
    """The inputs or the outputs of a network, flat behind each other in the order of the file.

    `tensors`: names in the ONNX file, by variable, where they are said.
    """

    def __init__(
        self,
        variables: Sequence[vnnlib.InputDefinition | vnnlib.OutputDefinition],
        tensors: Mapping[str, str],
    ) -> None:
        self.variables = tuple(InputVariable(v.name, tuple(v.shape)) for v in variables)
        sizes = [math.prod(variable.shape) for variable in variables]
        ends = list(accumulate(sizes))
        self.size = ends[-1]
        self.starts: dict[str, int] = {
            variable.name: end - size
            for variable, size, end in zip(variables, sizes, ends, strict=True)
        }
        self.shape = None if len(variables) > 1 else tuple(variables[0].shape)
        declared = tuple(
            DeclaredTensor(tensors.get(variable.name, ""), size)
            for variable, size in zip(variables, sizes, strict=True)
        )
        plain = len(declared) == 1 and not declared[0].name
        self.tensors = () if plain else declared

    def name(self, position: int) -> str:
        """Of a value, with its place in its variable."""
        return name_of_value(self.variables, position)


def networks(text: str, file: str) -> tuple[Network, ...]:
    """What a 2.0 query declares. Raises InstanceError as `parse` does."""
    _check_readable(text, file)
    code = _without_tensors(_COMMENT.sub("", text))
    _check_types(code, file)
    types = {found[2]: found[3] for found in _TYPED.finditer(code)}
    query = _query(_plain_numbers(code, file), code, file)

    def declared(variable: vnnlib.InputDefinition | vnnlib.OutputDefinition) -> Declared:
        return Declared(variable.name, types[variable.name], tuple(variable.shape))

    return tuple(
        Network(
            name=network.name,
            inputs=tuple(map(declared, network.inputs)),
            outputs=tuple(map(declared, network.outputs)),
            own_model=not network.equal_to,
        )
        for network in query.networks
    )


def _without_tensors(code: str) -> str:
    return _NAMED.sub(lambda found: found[1], code)


def _check_readable(text: str, file: str) -> None:
    # The package stops at a NUL as if the file ended there, and overflows its stack when nested.
    if "\0" in text:
        raise _malformed(file, "not a text file (it has a NUL character); is it really VNN-LIB?")
    depth = begin = 0
    for number, line in enumerate(_COMMENT.sub("", text).split("\n"), start=1):
        for parenthesis in re.findall(r"[()]", line):
            begin = number if depth == 0 else begin
            depth += 1 if parenthesis == "(" else -1
            if depth > MAXIMUM_NESTING:
                raise _unsupported(f"{file}:{number}", f"nested deeper than {MAXIMUM_NESTING}")
    if depth > 0:
        raise _malformed(f"{file}:{begin}", CUT_OFF)


def _check_types(code: str, file: str) -> None:
    # The package takes any word for a type, and then says that no number fits it.
    for found in _TYPED.finditer(code):
        what, name, word = found.groups()
        if word not in _REAL_TYPES:
            message = f"{what} {name} of type {word}; only {', '.join(_REAL_TYPES)} are"
            raise _unsupported(f"{file}:{_line(code, found)}", message)


def _plain_numbers(code: str, file: str) -> str:
    """With numbers in the only notation that the package's grammar has: 1e-3 is 0.001."""

    def plain(number: re.Match[str]) -> str:
        try:
            exact(number[0])
        except OutOfRangeError as error:
            raise _malformed(f"{file}:{_line(code, number)}", str(error)) from error
        if not number[1]:
            return number[0]
        digits = format(Decimal(number[0]), "f")
        return digits if "." in digits else digits + ".0"

    return _NUMBER.sub(plain, code)


def _query(plain: str, code: str, file: str) -> vnnlib.Query:
    try:
        return vnnlib.parse_query_string(plain)
    except vnnlib.VNNLibException as error:
        raise _malformed(*_explanation(str(error), file)) from error
    except (IndexError, ValueError) as error:
        # The package reads numbers with std::stoll and std::stod, whose exceptions come through.
        found = next(filter(_is_unreadable, _NUMBER.finditer(code)), None)
        place = f"{file}:{_line(code, found)}" if found else file
        what = found[0] if found else "a number"
        message = f"{what} is outside the 64-bit range; write one that is inside"
        raise _malformed(place, message) from error


def _is_unreadable(number: re.Match[str]) -> bool:
    if number[0].lstrip("-").isdecimal():
        return abs(int(number[0])) >= 2**63
    return 0 < abs(float(number[0])) < sys.float_info.min


def _explanation(report: str, file: str) -> tuple[str, str]:
    """Place and message from what the package says: a line, or JSON with several errors."""
    syntax = _SYNTAX.fullmatch(report)
    if syntax:
        symbol = repr(syntax[3]) if syntax[3] else "the end of the file"
        message = f"{symbol} (column {syntax[2]}) is not expected here; correct it. VNN-LIB "
        message += "2.0 has and, or, <=, <, >=, >, ==, !=, +, -, * and numbers like -1.5"
        return f"{file}:{syntax[1]}", message
    try:
        first = json.loads(report)["errors"][0]
    except (json.JSONDecodeError, KeyError, IndexError):
        return file, f"{report}; correct the file, or download it again"
    symbol, hint = first["offendingSymbol"], first["hint"]
    if "IntConstant" in hint:
        hint = f"Only a real number fits here: write {symbol}.0"
    return f"{file}:{first['line']}", f"{first['message']}: {symbol}. {hint}"


def _network(query: vnnlib.Query, file: str) -> vnnlib.Network:
    """The only network, which has inputs and outputs."""
    networks = query.networks
    names = ", ".join(network.name for network in networks)
    if len(networks) != 1:
        raise _unsupported(file, f"{len(networks)} networks ({names}); only one is")
    network = networks[0]
    for what, variables in (("input", network.inputs), ("output", network.outputs)):
        if not variables:
            raise _malformed(file, f"no {what} is declared; declare it")
    if network.hidden:
        raise _unsupported(file, f"hidden variable {network.hidden[0].name}")
    return network


def _line(code: str, found: re.Match[str]) -> int:
    return code.count("\n", 0, found.start()) + 1


class _Lowering:
    """Walks the package's AST. Lines are known at variables and literals only. `starts`: where the
    values of each variable begin among all inputs, or outputs.
    """

    def __init__(self, file: str, starts: Mapping[str, int]) -> None:
        self.file = file
        self._starts = starts
        self.line = 1

    def formula(self, node: vnnlib.BoolExpr) -> Formula:
        match node:
            case vnnlib.Comparison():
                operands = [self._linear(node.lhs), self._linear(node.rhs)]
                return compare(operands, _RELATIONS[type(node)], self.line)
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
                index = self._starts[node.name] + _flat_index(node.indices, node.shape)
                return Linear({Coordinate(_KINDS[node.kind], index): 1})
            case vnnlib.Literal():
                self.line = node.line
                return Linear(constant=exact(node.lexeme))
            case vnnlib.Negate():
                return self._linear(node.expr).scaled(-1)
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


def _malformed(place: str, message: str) -> InstanceError:
    return InstanceError(Cause.MALFORMED_PROPERTY, f"{place}: {message}")
