"""Counterexamples replayed on ONNX Runtime, as VNN-COMP 2026 does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runner.errors import InstanceError
from runner.files import read_bytes
from runner.network.runtime import OnnxRuntime
from runner.property.counterexample import parse_counterexample
from runner.property.model import Case, Property, Vector
from runner.property.read import read_property
from runner.report.assignment import is_assignment, parse_assignment
from runner.vocabulary import Cause, StrEnum

INPUT_TOLERANCE = 1e-4  # absolute, on each side of the box; the output has none


class Validity(StrEnum):
    """What a replay says of a counterexample."""

    VALID = "valid"
    TOLERATED = "valid up to the input tolerance"
    MISSING = "missing counterexample"
    MALFORMED = "malformed counterexample"
    WRONG_SHAPE = "counterexample of the wrong size"
    OUTSIDE = "counterexample outside the input box"
    SAFE = "counterexample with a safe output"
    UNCHECKED = "counterexample that cannot be checked"


@dataclass(frozen=True)
class Replay:
    """`outputs` are ONNX Runtime's, `stated` the file's; `excess`: how far the input lies outside
    the box of the case it is closest to, 0 inside.
    """

    validity: Validity
    detail: str = ""
    inputs: Vector | None = None
    outputs: Vector | None = None
    stated: Vector | None = None
    excess: float = 0.0


def replay(network: Path, property_path: Path, counterexample: Path | None) -> Replay:
    """What the original files say of a counterexample; its stated outputs do not count."""
    if counterexample is None:
        return Replay(Validity.MISSING)
    try:
        inputs, stated = _read(counterexample)
    except InstanceError as error:
        malformed = error.cause is Cause.INVALID_COUNTEREXAMPLE
        validity = Validity.MALFORMED if malformed else Validity.UNCHECKED
        return Replay(validity, str(error))
    if not len(inputs):
        return Replay(Validity.MISSING, f"{counterexample}: assigns no input")
    try:
        instance = read_property(property_path)
        runtime = OnnxRuntime(network)
        outputs = np.asarray(runtime.run(inputs), dtype=np.float64)
    except InstanceError as error:
        unfit = error.cause is Cause.SHAPE_MISMATCH
        return Replay(Validity.WRONG_SHAPE if unfit else Validity.UNCHECKED, str(error), inputs)
    if (instance.inputs, instance.outputs) != (len(inputs), len(outputs)):
        detail = f"{property_path}: {instance.inputs} inputs and {instance.outputs} outputs"
        return Replay(Validity.UNCHECKED, detail, inputs, outputs, stated)
    validity, excess = _judge(instance, inputs, outputs, runtime.dtype)
    return Replay(validity, "", inputs, outputs, stated, excess)


def _read(path: Path) -> tuple[Vector, Vector]:
    """Inputs and stated outputs, in the format of VNN-LIB 1.0 or 2.0; none of an empty file."""
    try:
        text = read_bytes(path, Cause.INVALID_COUNTEREXAMPLE).decode("ascii")
    except UnicodeDecodeError as error:
        raise InstanceError(Cause.INVALID_COUNTEREXAMPLE, f"{path}: not text: {error}") from error
    if not text.strip():
        return np.zeros(0), np.zeros(0)
    try:
        return parse_assignment(text) if is_assignment(text) else parse_counterexample(text)
    except InstanceError as error:
        raise InstanceError(error.cause, f"{path}: {error}") from error


def _judge(
    instance: Property, inputs: Vector, outputs: Vector, dtype: type[np.floating]
) -> tuple[Validity, float]:
    """Compares in the network's own precision: a bound that float32 cannot hold is rounded too."""
    found = [
        (_excess(case, inputs, dtype), any(region.holds(outputs) for region in case.unsafe))
        for case in instance.cases
    ]
    unsafe = [excess for excess, is_unsafe in found if is_unsafe]
    closest = min((excess for excess, _ in found), default=np.inf)
    if unsafe and min(unsafe) == 0:
        return Validity.VALID, 0.0
    if unsafe and min(unsafe) <= INPUT_TOLERANCE:
        return Validity.TOLERATED, min(unsafe)
    if closest > INPUT_TOLERANCE:
        return Validity.OUTSIDE, closest
    return Validity.SAFE, closest


def _excess(case: Case, inputs: Vector, dtype: type[np.floating]) -> float:
    x, lower, upper = (side.astype(dtype) for side in (inputs, case.lower, case.upper))
    if np.all((lower <= x) & (x <= upper)):
        return 0.0
    below, above = case.lower - inputs, inputs - case.upper
    return float(np.nan_to_num(np.maximum(below, above), nan=np.inf).max())
