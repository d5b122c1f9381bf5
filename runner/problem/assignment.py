"""Counterexamples as VNN-LIB 2.0 writes them: a line `name type [shape]` for each variable, and
under it a line for each of its values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.property.counterexample import Assignment, is_number
from runner.problem.property.declared import REAL, Variable

_HEAD = re.compile(r"\S+\s+[A-Za-z]\w*\s*\[([\d,\s]*)\]")


def is_assignment(text: str) -> bool:
    """Whether the first line is one of VNN-LIB 2.0, and not of 1.0."""
    lines = _lines(text)
    return bool(lines) and _HEAD.fullmatch(lines[0]) is not None


def parse_assignment(text: str) -> Assignment:
    """Of one network with one input and one output, in this order.

    Raises InstanceError: INVALID_COUNTEREXAMPLE when it is not in the format,
    UNSUPPORTED_PROPERTY when it assigns any other number of variables.
    """
    lines, variables = _lines(text), []
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
    if len(variables) != 2:
        message = f"assigns {len(variables)} variables; only one input and one output are supported"
        raise InstanceError(Cause.UNSUPPORTED_PROPERTY, message)
    return Assignment(*variables)


def format_assignment(inputs: Variable, outputs: Variable, assigned: Assignment) -> str:
    """Of one network with one input and one output, with the digits that `assigned` has."""
    lines: list[str] = []
    for variable, values in _sides(inputs, outputs, assigned):
        lines += [variable.head, *values]
    return "\n".join([*lines, ""])


def serialise_assignment(
    folder: Path, inputs: Variable, outputs: Variable, assigned: Assignment
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
    inputs: Variable, outputs: Variable, assigned: Assignment
) -> Iterator[tuple[Variable, Sequence[str]]]:
    yield inputs, assigned.inputs
    yield outputs, assigned.outputs


def _lines(text: str) -> list[str]:
    """Without empty ones, and without the verdict that may come first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[1:] if lines[:1] == ["sat"] else lines


def _invalid(message: str) -> InstanceError:
    return InstanceError(Cause.INVALID_COUNTEREXAMPLE, message)
