"""A property that was written once is read as the same property, or not at all."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.files import source_digest
from runner.problem.property.fitted import read_fitted, write_fitted
from runner.problem.property.model import Property
from runner.problem.property.read_property import read_property

UNION = """
(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)
(assert (or (and (>= X_0 0.1) (<= X_0 0.3)) (and (>= X_0 0.5) (<= X_0 1e-1)) (and (>= X_0 -2)
 (<= X_0 -1))))
(assert (>= X_1 0.1))(assert (<= X_1 0.1))
(assert (or (>= Y_0 0.7) (and (<= Y_0 (* 0.3 Y_1)) (>= Y_1 1e-300))))
"""
EVERYTHING_UNSAFE = """
(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))
"""
EMPTY = EVERYTHING_UNSAFE + "(assert (>= X_0 2))"
DECLARED = """
(vnnlib-version <2.0>)
(declare-network f
    (declare-input A float32 [2])
    (declare-input B float32 [1,2])
    (declare-output Z float32 [1,1])
)
(assert (and (> A[0] 0.1) (<= A[0] 0.2) (>= A[1] 0.0) (<= A[1] 1.0)))
(assert (and (>= B[0,0] 0.0) (<= B[0,0] 1.0) (>= B[0,1] 0.0) (< B[0,1] 1.0)))
(assert (< Z[0,0] 0.1))
"""


def files(folder: Path, text: str) -> tuple[Path, Path]:
    """The source, and where it goes once it is read."""
    source = folder / "prop.vnnlib"
    source.write_text(text)
    return source, folder / f"{source_digest(source)}.property"


def written(folder: Path, text: str) -> tuple[Property, Path]:
    source, path = files(folder, text)
    instance = read_property(source)
    write_fitted(path, instance, source_digest(source))
    return instance, path


def contents(value: object) -> object:
    """Comparable to the bit, exact numbers and kinds of arrays included."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        return {f.name: contents(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(map(contents, value))
    return value


@pytest.mark.parametrize("text", [UNION, EVERYTHING_UNSAFE, EMPTY, DECLARED])
def test_what_is_read_is_what_was_written(tmp_path: Path, text: str) -> None:
    instance, path = written(tmp_path, text)
    found = read_fitted(path)
    assert contents(found) == contents(instance)
    names = [[one.input_name(index) for index in range(one.inputs)] for one in (found, instance)]
    assert names[0] == names[1]


def test_boxes_of_a_union_still_share_their_region(tmp_path: Path) -> None:
    _, path = written(tmp_path, UNION)
    first, second = read_fitted(path).cases
    assert all(one is other for one, other in zip(first.unsafe, second.unsafe, strict=True))


def test_numbers_of_thousands_of_digits_stay_exact(tmp_path: Path) -> None:
    long = "0." + "3" * 6000
    instance, path = written(tmp_path, EVERYTHING_UNSAFE + f"(assert (<= Y_0 {long}))")
    assert contents(read_fitted(path)) == contents(instance)


def test_a_property_is_data_that_can_be_handed_over(tmp_path: Path) -> None:
    instance, _ = written(tmp_path, DECLARED)
    assert contents(pickle.loads(pickle.dumps(instance))) == contents(instance)


def test_any_changed_byte_is_an_error(tmp_path: Path) -> None:
    _, path = written(tmp_path, UNION)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InstanceError, match="prepare the property again") as error:
            read_fitted(path)
        assert error.value.cause is Cause.MALFORMED_PROPERTY


def test_a_file_that_ends_early_or_is_gone_is_an_error(tmp_path: Path) -> None:
    _, path = written(tmp_path, UNION)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InstanceError, match="damaged"):
        read_fitted(path)
    path.unlink()
    with pytest.raises(InstanceError, match="no such file") as error:
        read_fitted(path)
    assert error.value.cause is Cause.MISSING_FILE


def test_a_file_of_another_source_is_an_error(tmp_path: Path) -> None:
    _, path = written(tmp_path, UNION)
    other = path.rename(path.with_stem("0" * 64))
    with pytest.raises(InstanceError, match="another file"):
        read_fitted(other)


def test_a_file_of_another_version_is_an_error(tmp_path: Path) -> None:
    _, path = written(tmp_path, UNION)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(arrays, path, {**metadata, "format": "vnncomp-runner-property-0"})
    with pytest.raises(InstanceError, match="this version"):
        read_fitted(path)
