"""Jobs and reports as plain JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from runner.contract.question import Job, RankReport
from runner.contract.vocabulary import Cause, Device, Memory, Meter, Method, Phase, Verdict
from runner.contract.workload import Workload


def job_to_json(job: Job) -> dict[str, Any]:
    return asdict(job)


def job_from_json(data: Mapping[str, Any]) -> Job:
    """Raises KeyError, TypeError or ValueError where `data` is not what `job_to_json` gives."""
    workload = data["workload"]
    parsed = {
        "method": Method(data["method"]),
        "device": Device(data["device"]),
        "workload": Workload(**workload) if workload else None,
    }
    return Job(**{**data, **parsed})


def report_to_json(report: RankReport) -> dict[str, Any]:
    return asdict(report)


def report_from_json(data: Mapping[str, Any]) -> RankReport:
    """Raises KeyError, TypeError or ValueError where `data` is not what `report_to_json` gives."""
    enums = {
        "verdict": Verdict(data["verdict"]),
        "cause": Cause(data["cause"]),
        "meter": Meter(data["meter"]),
        "phase_s": {Phase(phase): seconds for phase, seconds in data["phase_s"].items()},
        "peak_bytes": _by_kind(data["peak_bytes"]),
        "at_peak_bytes": _by_kind(data["at_peak_bytes"]),
    }
    return RankReport(**{**data, **enums})


def _by_kind(data: Mapping[str, int]) -> dict[Memory, int]:
    return {Memory(kind): size for kind, size in data.items()}
