"""Counterexamples in the VNN-LIB 1.0 format: `((X_0 v) … (Y_0 v) …)`."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from runner.errors import InstanceError
from runner.property.model import Vector
from runner.vocabulary import Cause

_ASSIGNMENT = re.compile(r"\(\s*([XY])_(\d+)\s+([^\s()]+)\s*\)")


def format_counterexample(inputs: ArrayLike, outputs: ArrayLike) -> str:
    """One assignment a line, of flat arrays of any float dtype and any shape.

    Values are the shortest decimals that read back as the same float64, so a float32 value is
    the same to a reader in either precision.
    """
    lines = [
        f"({letter}_{index} {value!r})"
        for letter, values in (("X", inputs), ("Y", outputs))
        for index, value in enumerate(np.asarray(values, dtype=np.float64).reshape(-1).tolist())
    ]
    return "(" + "\n".join(lines) + ")\n"


def write_counterexample(path: Path, inputs: ArrayLike, outputs: ArrayLike) -> None:
    """Writes whole or not at all, gzip-compressed when the name ends in .gz."""
    content = format_counterexample(inputs, outputs).encode("ascii")
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def parse_counterexample(text: str) -> tuple[Vector, Vector]:
    """The flat float64 inputs and outputs that a counterexample assigns.

    Raises InstanceError(INVALID_COUNTEREXAMPLE) when it is not in the format.
    """
    # What is left without the assignments is the outer pair of parentheses, or something is wrong.
    if "".join(_ASSIGNMENT.sub("", text).split()) != "()":
        raise _invalid("expected ((X_0 value) … (Y_0 value) …) and nothing else")
    values: dict[str, list[float]] = {"X": [], "Y": []}
    for letter, index, value in _ASSIGNMENT.findall(text):
        if int(index) != len(values[letter]):
            raise _invalid(f"{letter}_{index} where {letter}_{len(values[letter])} is expected")
        try:
            values[letter].append(float(value))
        except ValueError as error:
            raise _invalid(f"{letter}_{index} is {value!r}, not a number") from error
    inputs, outputs = (np.array(values[letter], dtype=np.float64) for letter in ("X", "Y"))
    return inputs, outputs


def _invalid(message: str) -> InstanceError:
    return InstanceError(Cause.INVALID_COUNTEREXAMPLE, f"counterexample: {message}")
