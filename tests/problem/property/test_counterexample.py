"""Counterexamples in the 1.0 format: exact, whole, and refused when they are not in it."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.property.counterexample import (
    format_counterexample,
    parse_counterexample,
    write_counterexample,
)


def test_the_format_is_one_list_of_contiguous_assignments() -> None:
    text = format_counterexample([0.5, -1e-7], [[2.0]])
    assert text == "((X_0 0.5)\n(X_1 -1e-07)\n(Y_0 2.0))\n"


@pytest.mark.parametrize(("dtype", "width"), [(np.float32, 32), (np.float64, 64)])
@given(data=st.data())
def test_values_read_back_exactly(
    data: st.DataObject, dtype: type[np.floating], width: Literal[32, 64]
) -> None:
    floats = st.lists(st.floats(width=width), min_size=1, max_size=20)
    inputs: NDArray[np.floating] = np.array(data.draw(floats), dtype=dtype)
    outputs: NDArray[np.floating] = np.array(data.draw(floats), dtype=dtype)
    read_inputs, read_outputs = parse_counterexample(format_counterexample(inputs, outputs))
    np.testing.assert_array_equal(read_inputs, inputs.astype(np.float64))
    np.testing.assert_array_equal(read_outputs, outputs.astype(np.float64))
    np.testing.assert_array_equal(read_inputs.astype(dtype), inputs)


def test_any_spacing_between_assignments_is_read() -> None:
    inputs, outputs = parse_counterexample("(\n( X_0  1e-3 )(X_1 -2)\r\n(Y_0 3.)\n)")
    assert (inputs.tolist(), outputs.tolist()) == ([0.001, -2.0], [3.0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(X_0 1.0)",
        "((X_0 1.0)",
        "((X_0 1.0)))",
        "sat ((X_0 1.0))",
        "((X_1 1.0)(X_0 1.0))",
        "((X_0 1.0)(X_0 1.0))",
        "((X_0 1.0)(X_2 1.0))",
        "((X_0 one))",
        "((X_0 1.0)(Z_0 1.0))",
        "((X_0))",
    ],
)
def test_anything_else_is_an_invalid_counterexample(text: str) -> None:
    with pytest.raises(InstanceError) as raised:
        parse_counterexample(text)
    assert raised.value.cause is Cause.INVALID_COUNTEREXAMPLE


def test_a_name_in_gz_is_compressed(tmp_path: Path) -> None:
    for name in ("a.counterexample", "a.counterexample.gz"):
        write_counterexample(tmp_path / name, [1.0], [2.0])
    plain = (tmp_path / "a.counterexample").read_bytes()
    assert plain == b"((X_0 1.0)\n(Y_0 2.0))\n"
    assert gzip.decompress((tmp_path / "a.counterexample.gz").read_bytes()) == plain


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.counterexample"
    write_counterexample(path, [1.0], [2.0])

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_counterexample(path, [9.0], [9.0])
    assert path.read_text() == "((X_0 1.0)\n(Y_0 2.0))\n"
    assert list(tmp_path.iterdir()) == [path]
