"""What `vnncomp-runner verify` prints on standard output."""

from __future__ import annotations

import sys
from enum import StrEnum

from runner.contract.vocabulary import Verdict

FAILED = 1


class Result(StrEnum):
    """VNN-LIB 2.0's words for a verdict."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMED_OUT = "timed-out"


RESULTS = {
    Verdict.SAT: Result.SAT,
    Verdict.UNSAT: Result.UNSAT,
    Verdict.UNKNOWN: Result.UNKNOWN,
    Verdict.TIMEOUT: Result.TIMED_OUT,
}


def print_result(result: Result, assignment: str = "") -> None:
    sys.stdout.write(f"{result}\n{assignment}")
    sys.stdout.flush()
