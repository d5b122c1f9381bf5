"""Counterexamples in the VNN-LIB 1.0 format: `((X_0 v) … (Y_0 v) …)`."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.contract.whole import replace_file
from runner.problem.property.model import Vector

_ASSIGNMENT = re.compile(r"\(\s*([XY])_(\d+)\s+([^\s()]+)\s*\)")


def printed(values: ArrayLike) -> list[str]:
    """The shortest decimals that read back as the same float64, of any shape, flat.

    A float32 value is thus the same to a reader in either precision.
    """
    return [repr(value) for value in np.asarray(values, dtype=np.float64).reshape(-1).tolist()]


def format_counterexample(inputs: ArrayLike, outputs: ArrayLike) -> str:
    """One assignment a line, of arrays of any float dtype and any shape."""
    lines = [
        f"({letter}_{index} {digits})"
        for letter, values in (("X", inputs), ("Y", outputs))
        for index, digits in enumerate(printed(values))
    ]
    return "(" + "\n".join(lines) + ")\n"


def write_counterexample(path: Path, inputs: ArrayLike, outputs: ArrayLike) -> None:
    """Writes whole or not at all, gzip-compressed when the name ends in .gz."""
    content = format_counterexample(inputs, outputs).encode("ascii")
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    replace_file(path, content)


@dataclass(frozen=True)
class Assignment:
    """What a counterexample assigns, as it is printed; every value reads as a float64."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def values(self) -> tuple[Vector, Vector]:
        """The flat float64 inputs and outputs."""
        return np.array(self.inputs, dtype=np.float64), np.array(self.outputs, dtype=np.float64)


def parse_counterexample(text: str) -> tuple[Vector, Vector]:
    """The flat float64 inputs and outputs that a counterexample assigns; see `read_assignment`."""
    return read_assignment(text).values()


def read_assignment(text: str) -> Assignment:
    """Raises InstanceError(INVALID_COUNTEREXAMPLE) when `text` is not in the format."""
    # What is left without the assignments is the outer pair of parentheses, or something is wrong.
    if "".join(_ASSIGNMENT.sub("", text).split()) != "()":
        raise _invalid("expected ((X_0 value) … (Y_0 value) …) and nothing else")
    values: dict[str, list[str]] = {"X": [], "Y": []}
    for letter, index, value in _ASSIGNMENT.findall(text):
        if int(index) != len(values[letter]):
            raise _invalid(f"{letter}_{index} where {letter}_{len(values[letter])} is expected")
        if not is_number(value):
            raise _invalid(f"{letter}_{index} is {value!r}, not a number")
        values[letter].append(value)
    return Assignment(tuple(values["X"]), tuple(values["Y"]))


def is_number(text: str) -> bool:
    """Whether it reads as a float64."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _invalid(message: str) -> InstanceError:
    return InstanceError(Cause.INVALID_COUNTEREXAMPLE, f"counterexample: {message}")
