"""A property as it was read, in a file: preparation parses it, and whoever asks of it does not.

One safetensors file: arrays for what is many, JSON in the metadata for what is one. Equal limits
and regions are stored once, as boxes of a union share them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.contract.whole import replaced
from runner.problem.property.model import (
    Case,
    Conjunction,
    DeclaredTensor,
    InputVariable,
    Property,
)
from runner.problem.property.numbers import Exact, Limit, Limits

_FORMAT = "vnncomp-runner-property-1"

Arrays = Mapping[str, NDArray[Any]]


def write_fitted(path: Path, instance: Property, source: str) -> None:
    """Writes all or nothing. `source`: the digest of the file that it was read from, after which
    `path` is named.
    """
    arrays = _boxes(instance) | _regions(instance)
    facts = {
        field.name: getattr(instance, field.name)
        for field in dataclasses.fields(instance)
        if field.name != "cases"
    }
    facts["input_variables"] = [dataclasses.astuple(one) for one in instance.input_variables]
    for side in ("input_tensors", "output_tensors"):
        facts[side] = [dataclasses.astuple(one) for one in facts[side]]
    said = json.dumps(facts)
    metadata = {
        "format": _FORMAT,
        "source": source,
        "facts": said,
        "content": _digest(said, arrays),
    }
    with replaced(path, durable=False) as draft:
        save_file(dict(arrays), draft, metadata)


def read_fitted(path: Path) -> Property:
    """Raises InstanceError: MISSING_FILE, or MALFORMED_PROPERTY for what is damaged or of another
    source, format or kind.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InstanceError(
            Cause.MISSING_FILE, f"{path}: no such file; prepare the property again"
        ) from error
    except (SafetensorError, OSError) as error:
        raise _unusable(path, f"damaged ({error})") from error
    if metadata.get("format") != _FORMAT:
        raise _unusable(path, "not a property as this version writes it")
    if metadata.get("source") != path.stem:
        raise _unusable(path, "made from another file than it is named after")
    said = metadata.get("facts", "")
    if metadata.get("content") != _digest(said, arrays):
        raise _unusable(path, "damaged (its content is not what was written)")
    facts = json.loads(said)
    for side in ("input_tensors", "output_tensors"):
        facts[side] = tuple(DeclaredTensor(name, size) for name, size in facts[side])
    for side in ("input_shape", "output_shape"):
        facts[side] = None if facts[side] is None else tuple(facts[side])
    facts["input_variables"] = tuple(
        InputVariable(name, tuple(shape)) for name, shape in facts["input_variables"]
    )
    return Property(cases=_cases(arrays), **facts)


def _unusable(path: Path, why: str) -> InstanceError:
    return InstanceError(Cause.MALFORMED_PROPERTY, f"{path}: {why}; prepare the property again")


def _digest(said: str, arrays: Arrays) -> str:
    digest = sha256(said.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _boxes(instance: Property) -> dict[str, NDArray[Any]]:
    numbers: dict[Limit, int] = {}
    places = [
        numbers.setdefault(limit, len(numbers))
        for case in instance.cases
        for interval in case.limits
        for limit in interval
    ]
    shape = (len(instance.cases), instance.inputs, 2)
    return {
        "boxes": np.array(places, dtype=np.int32).reshape(shape),
        "below": np.array([limit.below for limit in numbers], dtype=np.float64),
        "above": np.array([limit.above for limit in numbers], dtype=np.float64),
        "nudge": np.array([limit.nudge for limit in numbers], dtype=np.int8),
        "exact": _text(limit.exact for limit in numbers),
    }


def _regions(instance: Property) -> dict[str, NDArray[Any]]:
    """Regions are told apart as objects, which boxes of a union share."""
    disjuncts = [region for case in instance.cases for region in case.unsafe]
    regions = {id(region): region for region in disjuncts}
    numbers = {key: number for number, key in enumerate(regions)}
    matrices = [region.matrix for region in regions.values()]
    return {
        "unsafe": np.array([numbers[id(region)] for region in disjuncts], dtype=np.int64),
        "unsafe_ends": np.cumsum([len(case.unsafe) for case in instance.cases], dtype=np.int64),
        "rows_ends": np.cumsum([len(matrix) for matrix in matrices], dtype=np.int64),
        "matrix": np.concatenate([np.zeros((0, instance.outputs)), *matrices]),
        "rhs": np.concatenate([np.zeros(0), *(region.rhs for region in regions.values())]),
        "strict": np.concatenate(
            [np.zeros(0, dtype=np.bool_), *(region.strict for region in regions.values())]
        ),
        "bounds": _text(bound for region in regions.values() for bound in _bounds(region)),
    }


def _bounds(region: Conjunction) -> Sequence[Exact]:
    return region.bounds or [Fraction(bound) for bound in region.rhs.tolist()]


def _cases(arrays: Arrays) -> tuple[Case, ...]:
    regions = _read_regions(arrays)
    below, nudge, above = (arrays[name].tolist() for name in ("below", "nudge", "above"))
    limits = [
        Limit(*fields) for fields in zip(below, _exact(arrays["exact"]), nudge, above, strict=True)
    ]
    lower, upper = np.moveaxis(arrays["boxes"], 2, 0)
    unsafe = [regions[number] for number in arrays["unsafe"].tolist()]
    return tuple(
        Case(
            arrays["below"][least],
            arrays["above"][greatest],
            tuple(unsafe[disjuncts]),
            _ReadLimits(limits, least, greatest),
        )
        for least, greatest, disjuncts in zip(
            lower, upper, _spans(arrays["unsafe_ends"]), strict=True
        )
    )


class _ReadLimits(Sequence[Limits]):
    """Of the inputs of one box, made when they are asked for: of thousands of boxes few are."""

    def __init__(
        self, limits: Sequence[Limit], least: NDArray[np.int32], greatest: NDArray[np.int32]
    ) -> None:
        """`limits` by the numbers that inputs have as `least` and `greatest` [inputs]."""
        self._limits, self._least, self._greatest = limits, least, greatest

    def __len__(self) -> int:
        return len(self._least)

    @overload
    def __getitem__(self, index: int) -> Limits: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Limits]: ...

    def __getitem__(self, index: int | slice) -> Limits | Sequence[Limits]:
        if isinstance(index, slice):
            return _ReadLimits(self._limits, self._least[index], self._greatest[index])
        return Limits(self._limits[self._least[index]], self._limits[self._greatest[index]])


def _read_regions(arrays: Arrays) -> list[Conjunction]:
    rows = _spans(arrays["rows_ends"])
    exact = _exact(arrays["bounds"])
    matrix, rhs, strict = (arrays[name] for name in ("matrix", "rhs", "strict"))
    return [Conjunction(matrix[at], rhs[at], strict[at], tuple(exact[at])) for at in rows]


def _spans(ends: NDArray[Any]) -> list[slice]:
    return [slice(start, end) for start, end in pairwise([0, *ends.tolist()])]


def _text(numbers: Iterable[Exact]) -> NDArray[np.uint8]:
    """Hexadecimal, which Python writes and reads at any length."""
    text = " ".join(
        f"{number.numerator:x}/{number.denominator:x}"
        if number.denominator != 1
        else f"{number.numerator:x}"
        for number in numbers
    )
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8)


def _exact(text: NDArray[np.uint8]) -> list[Exact]:
    return [_number(*word.split("/")) for word in text.tobytes().decode("ascii").split()]


def _number(numerator: str, denominator: str = "") -> Exact:
    top = int(numerator, 16)
    return Fraction(top, int(denominator, 16)) if denominator else top
