"""The one place where whatever goes wrong in a rank becomes a report."""

from __future__ import annotations

import errno
import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.contract.errors import InstanceError
from runner.contract.limits import lift_memory_cap
from runner.contract.measurements import Measurements
from runner.contract.question import Report
from runner.contract.vocabulary import Cause, Verdict
from runner.contract.whole import replace_file
from runner.contract.wire import report_to_json

REPORTED = 0  # exit code: the target returned and its report is written
REPORTED_ERROR = 1  # exit code: the target raised; the report says what

# Libraries say in words, not types, that an allocation failed.
_MEMORY_WORDS = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "std::bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    # oneDNN's only words for it, of convolutions
    "could not create a primitive",
    "could not create a memory object",
    # protobuf's only word for a failed allocation; networks of 2 GB and more bypass it
    "Failed to serialize proto",
)
# Not only an OSError says so: safetensors puts the words into an error of its own.
_DISK_WORDS = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))
_log = logging.getLogger(__name__)


class MeasuredFailure(Exception):
    """Raised from what a rank ran into, with what was measured by then."""

    def __init__(self, measured: Measurements) -> None:
        super().__init__("a rank failed; its cause says how")
        self.measured = measured


def report_path(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.json"


def read_report(folder: Path, rank: int) -> dict[str, Any] | None:
    """What rank `rank` wrote; None where it left nothing."""
    path = report_path(folder, rank)
    report: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return report


def run_guarded(work: Callable[[], Mapping[str, Any]], rank: int, folder: Path) -> int:
    """Do `work` and write the report it returns; gives the exit code.

    Whatever it raises is written as a report with its cause instead.
    """
    try:
        _write(report_path(folder, rank), work())
    except BaseException as error:  # noqa: BLE001 - the boundary: nothing may pass it
        lift_memory_cap()
        _log.error("rank %d failed\n%s", rank, "".join(traceback.format_exception(error)))
        _write(report_path(folder, rank), report_to_json(failure_report(rank, error)))
        return REPORTED_ERROR
    return REPORTED


def failure_report(rank: int, error: BaseException) -> Report:
    """The report of a rank that ended with `error`."""
    if isinstance(error, MeasuredFailure) and error.__cause__ is not None:
        return replace(failure_report(rank, error.__cause__), measured=error.measured)
    last_line = traceback.format_exception_only(error)[-1].strip()
    if _is_out_of_memory(error):
        remedy = "give it more memory, or share it between more ranks"
        cause, message = Cause.OUT_OF_MEMORY, f"{last_line}; {remedy}"
    elif _is_disk_full(error):
        cause, message = Cause.DISK_FULL, last_line
    elif isinstance(error, InstanceError):
        cause, message = error.cause, str(error)
    else:
        cause, message = Cause.INTERNAL_ERROR, last_line
    return Report(rank=rank, verdict=Verdict.ERROR, cause=cause, message=message)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, says that memory ran out."""
    return any(
        isinstance(cause, MemoryError)
        or any(base.__name__ == "OutOfMemoryError" for base in type(cause).__mro__)
        or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
        or any(words in str(cause) for words in _MEMORY_WORDS)
        for cause in _causes(error)
    )


def _is_disk_full(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, says that there is no room to write."""
    return any(words in str(cause) for cause in _causes(error) for words in _DISK_WORDS)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _write(path: Path, report: Mapping[str, Any]) -> None:
    replace_file(path, json.dumps(report), durable=False)
