"""Counterexamples replayed on ONNX Runtime, as VNN-COMP 2026 does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.assignment import is_assignment, parse_assignment
from runner.problem.files import read_bytes
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.counterexample import Assignment, printed, read_assignment
from runner.problem.property.inside import CHECKER_TOLERANCE, Outside, excess_in, outside
from runner.problem.property.model import Case, Property, Vector
from runner.problem.property.numbers import OutOfRangeError
from runner.problem.property.read_property import read_networks, read_property


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
    the box of the case it is closest to, 0 inside, both as the network's precision rounds them.
    `rounding`: how far a valid one lies outside by exact arithmetic, if beyond the tolerance.
    `exact`: exact arithmetic says of a valid one too that it lies in the box within the tolerance,
    and that its outputs are finite and unsafe. `computed`: `inputs` in the network's own type.
    """

    validity: Validity
    detail: str = ""
    inputs: Vector | None = None
    outputs: Vector | None = None
    stated: Vector | None = None
    excess: float = 0.0
    rounding: str = ""
    exact: bool = False
    computed: NDArray[np.floating] | None = None


def replay(network: Path, property_path: Path, counterexample: Path | None) -> Replay:
    """What the original files say of a counterexample; its stated outputs do not count."""
    if counterexample is None:
        return Replay(Validity.MISSING)
    try:
        assigned = _read(counterexample, property_path)
        inputs, stated = assigned.values()
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
    validity, excess, cases = _judge(instance, inputs, outputs, runtime.dtype)
    with np.errstate(over="ignore"):
        computed = inputs.astype(runtime.dtype)
    points = {assigned.inputs, tuple(printed(computed))}
    rounding = _rounding(instance, cases, points)
    exact = any(_is_exact(case, points, outputs) for case in cases)
    return Replay(validity, "", inputs, outputs, stated, excess, rounding, exact, computed)


def _read(path: Path, property_path: Path) -> Assignment:
    """Inputs and stated outputs, in the format of VNN-LIB 1.0 or 2.0; none of an empty file."""
    try:
        text = read_bytes(path, Cause.INVALID_COUNTEREXAMPLE).decode("ascii")
    except UnicodeDecodeError as error:
        raise InstanceError(Cause.INVALID_COUNTEREXAMPLE, f"{path}: not text: {error}") from error
    if not text.strip():
        return Assignment()
    try:
        if not is_assignment(text):
            return read_assignment(text)
        return parse_assignment(text, next(iter(read_networks(property_path)), None))
    except InstanceError as error:
        raise InstanceError(error.cause, f"{path}: {error}") from error


def _judge(
    instance: Property, inputs: Vector, outputs: Vector, dtype: type[np.floating]
) -> tuple[Validity, float, list[Case]]:
    """Compares in the network's own precision: a bound that float32 cannot hold is rounded too.

    With the cases that make it valid.
    """
    excess = [excess_in(dtype, case, inputs) for case in instance.cases]
    unsafe = [
        (distance, case)
        for distance, case in zip(excess, instance.cases, strict=True)
        if any(region.holds_in_float64(outputs) for region in case.unsafe)
    ]
    allowed = [(distance, case) for distance, case in unsafe if distance <= CHECKER_TOLERANCE]
    if allowed:
        least = min(distance for distance, _ in allowed)
        validity = Validity.TOLERATED if least else Validity.VALID
        return validity, least, [case for _, case in allowed]
    closest = min(excess, default=np.inf)
    return Validity.SAFE if closest <= CHECKER_TOLERANCE else Validity.OUTSIDE, closest, []


def _is_exact(case: Case, points: set[tuple[str, ...]], outputs: Vector) -> bool:
    """Whether exact arithmetic finds every one of these points a counterexample of the case."""
    try:
        places = [outside(case, point) for point in points]
    except OutOfRangeError:
        return False
    within = all(place is None or place.tolerated for place in places)
    unsafe = any(region.holds(outputs) for region in case.unsafe)
    return within and unsafe and bool(np.all(np.isfinite(outputs)))


def _rounding(instance: Property, cases: list[Case], points: set[tuple[str, ...]]) -> str:
    """What exact arithmetic has against a counterexample that is valid for all of these cases.

    `points`: what the file prints, and what the network's input type makes of it.
    """
    beyond: list[Outside] = []
    for case in cases:
        try:
            found = [place for point in points if (place := outside(case, point))]
        except OutOfRangeError:
            return ""  # too near to 0 to matter
        worst = max(found, key=lambda place: place.excess, default=None)
        if worst is None or worst.tolerated:
            return ""
        beyond.append(worst)
    if not beyond:
        return ""
    nearest = min(beyond, key=lambda place: place.excess)
    return nearest.said(instance.input_name(nearest.index))
