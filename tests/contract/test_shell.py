"""Whatever goes wrong in a rank is reported under its cause."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from runner.contract.errors import InstanceError
from runner.contract.measurements import Measurements
from runner.contract.shell import (
    REPORTED,
    REPORTED_ERROR,
    MeasuredFailure,
    failure_report,
    report_path,
    run_guarded,
)
from runner.contract.vocabulary import Cause, Verdict


def _raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: out of memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        _raised_from(InstanceError(Cause.MALFORMED_NETWORK, "x.onnx"), MemoryError()),
    ],
    ids=repr,
)
def test_lack_of_memory_has_its_own_cause(error: Exception) -> None:
    assert failure_report(0, error).cause is Cause.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.gz"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        SafetensorError("Error while serializing: I/O error: No space left on device"),
        _raised_from(RuntimeError("x"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    ],
    ids=repr,
)
def test_lack_of_room_on_the_disk_has_its_own_cause(error: Exception) -> None:
    assert failure_report(0, error).cause is Cause.DISK_FULL


@pytest.mark.parametrize(
    ("error", "cause", "message"),
    [
        (InstanceError(Cause.MISSING_FILE, "x.onnx: no such file"), Cause.MISSING_FILE, "x.onnx"),
        (RuntimeError("shapes differ"), Cause.INTERNAL_ERROR, "RuntimeError: shapes differ"),
        (KeyboardInterrupt(), Cause.INTERNAL_ERROR, "KeyboardInterrupt"),
    ],
    ids=repr,
)
def test_other_errors_keep_their_cause_and_words(
    error: BaseException, cause: Cause, message: str
) -> None:
    report = failure_report(3, error)
    assert (report.rank, report.verdict, report.cause) == (3, Verdict.ERROR, cause)
    assert message in report.message


def test_what_was_measured_before_a_failure_is_reported_with_it() -> None:
    failure = MeasuredFailure(Measurements(wall_s=2.5, weight_bytes=7))
    report = failure_report(1, _raised_from(failure, MemoryError("no more")))
    assert report.cause is Cause.OUT_OF_MEMORY
    assert (report.measured.wall_s, report.measured.weight_bytes) == (2.5, 7)
    assert "MemoryError: no more" in report.message


def _fail() -> dict[str, object]:
    raise ValueError("seven")


@pytest.mark.parametrize(("work", "code"), [(dict, REPORTED), (_fail, REPORTED_ERROR)])
def test_a_report_is_written_whole_either_way(
    tmp_path: Path, work: Callable[[], dict[str, object]], code: int
) -> None:
    assert run_guarded(work, 1, tmp_path) == code
    assert [path.name for path in tmp_path.iterdir()] == ["rank1.json"]
    json.loads(report_path(tmp_path, 1).read_text())
