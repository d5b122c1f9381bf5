"""Counterexamples as VNN-LIB 2.0 writes them: a line `name type [shape]` for each variable, and
under it a line for each of its values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.property.counterexample import Assignment, is_number
from runner.problem.property.declared import REAL, Network, Variable

_HEAD = re.compile(r"\S+\s+[A-Za-z]\w*\s*\[([\d,\s]*)\]")


def is_assignment(text: str) -> bool:
    """Whether the first line is one of VNN-LIB 2.0, and not of 1.0."""
    lines = _lines(text)
    return bool(lines) and _HEAD.fullmatch(lines[0]) is not None


def parse_assignment(text: str, declared: Network | None = None) -> Assignment:
    """Of the network that is declared, its inputs and then its outputs in order; where none is, of
    one input and one output.

    Raises InstanceError: INVALID_COUNTEREXAMPLE when it is not in the format, or assigns any other
    number of variables than are declared; UNSUPPORTED_PROPERTY where nothing is declared.
    """
    lines = _lines(text)
    variables: list[tuple[str, ...]] = []
    while lines:
        head = _HEAD.fullmatch(lines[0])
        if head is None:
            raise _invalid(f"{lines[0]!r} where `name type [shape]` is expected")
        size = math.prod(int(length) for length in head[1].replace(",", " ").split())
        values, lines = lines[1 : size + 1], lines[size + 1 :]
        if len(values) < size:
            raise _invalid(f"{len(values)} values under {head[0]!r}")
        wrong = next((value for value in values if not is_number(value)), None)
        if wrong is not None:
            raise _invalid(f"under {head[0]!r}: {wrong!r} is not a number")
        variables.append(tuple(values))
    inputs, outputs = (len(declared.inputs), len(declared.outputs)) if declared else (1, 1)
    if len(variables) != inputs + outputs:
        cause = Cause.INVALID_COUNTEREXAMPLE if declared else Cause.UNSUPPORTED_PROPERTY
        message = f"{len(variables)} variables, not {inputs} inputs and {outputs} outputs"
        raise InstanceError(cause, message)
    return Assignment(tuple(chain(*variables[:inputs])), tuple(chain(*variables[inputs:])))


def format_assignment(
    inputs: Sequence[Variable], outputs: Sequence[Variable], assigned: Assignment
) -> str:
    """Of one network, with the digits that `assigned` has."""
    lines: list[str] = []
    for variable, values in _sides(inputs, outputs, assigned):
        lines += [variable.head, *values]
    return "\n".join([*lines, ""])


def serialise_assignment(
    folder: Path, inputs: Sequence[Variable], outputs: Sequence[Variable], assigned: Assignment
) -> None:
    """The same as a file `<name>.pb` for each variable, which holds a TensorProto of ONNX.

    Variables of type `real`, which ONNX has not, are of float64.
    """
    from onnx import numpy_helper  # slow to import, and few want it

    folder.mkdir(parents=True, exist_ok=True)
    for variable, values in _sides(inputs, outputs, assigned):
        dtype = "float64" if variable.type == REAL else variable.type
        tensor = np.array(values, dtype=np.float64).astype(dtype).reshape(variable.shape)
        proto = numpy_helper.from_array(tensor, variable.name)
        (folder / f"{variable.name}.pb").write_bytes(proto.SerializeToString())


def _sides(
    inputs: Sequence[Variable], outputs: Sequence[Variable], assigned: Assignment
) -> Iterator[tuple[Variable, Sequence[str]]]:
    for variables, values in ((inputs, assigned.inputs), (outputs, assigned.outputs)):
        start = 0
        for variable in variables:
            stop = start + math.prod(variable.shape)
            yield variable, values[start:stop]
            start = stop


def _lines(text: str) -> list[str]:
    """Without empty ones, and without the verdict that may come first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[1:] if lines[:1] == ["sat"] else lines


def _invalid(message: str) -> InstanceError:
    return InstanceError(Cause.INVALID_COUNTEREXAMPLE, message)
