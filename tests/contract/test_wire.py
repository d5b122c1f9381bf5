"""Jobs and reports survive the way through JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.contract.question import Job, RankReport
from runner.contract.vocabulary import Cause, Memory, Phase, Verdict
from runner.contract.wire import (
    MALFORMED,
    job_from_json,
    job_to_json,
    report_from_json,
    report_to_json,
)
from runner.contract.workload import Workload
from runner.verifiers.strategies import STRATEGIES, strategy_named

_seconds = st.floats(min_value=0, allow_nan=False)
_bytes = st.integers(0, 1 << 62)

workloads = st.builds(Workload, rounds=st.integers(1), batch=st.integers(1).map(lambda n: 2 * n))
jobs = st.builds(
    Job,
    strategy=st.sampled_from(sorted(STRATEGIES)).map(strategy_named),
    memory_limit_bytes=st.none() | _bytes,
    timeout_s=_seconds,
    workload=st.none() | workloads,
    work_bytes=st.none() | _bytes,
)
reports = st.builds(
    RankReport,
    lower_bound=st.none() | st.floats(allow_nan=False),
    wall_s=_seconds,
    cpu_s=_seconds,
    comm_s=_seconds,
    phase_s=st.dictionaries(st.sampled_from(Phase), _seconds),
    peak_bytes=st.dictionaries(st.sampled_from(Memory), _bytes),
)


@given(jobs)
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    assert job_from_json(json.loads(json.dumps(job_to_json(job)))) == job


@given(reports)
def test_a_report_comes_back_as_it_was(report: RankReport) -> None:
    assert report_from_json(json.loads(json.dumps(report_to_json(report)))) == report


def test_words_come_back_as_members_of_their_sets() -> None:
    report = RankReport(0, Verdict.ERROR, Cause.OUT_OF_MEMORY, phase_s={Phase.LOAD: 1.0})
    back = report_from_json(json.loads(json.dumps(report_to_json(report))))
    assert isinstance(back.verdict, Verdict)
    assert isinstance(back.cause, Cause)
    assert all(isinstance(phase, Phase) for phase in back.phase_s)


def test_a_word_outside_its_set_is_refused() -> None:
    data = report_to_json(RankReport(0, Verdict.SAT))
    with pytest.raises(ValueError, match="maybe"):
        report_from_json({**data, "verdict": "maybe"})


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(MALFORMED, match="colour"):
        report_from_json({**report_to_json(RankReport(0, Verdict.SAT)), "colour": "red"})


@pytest.mark.parametrize("phases", ["none", 3, [1]])
def test_what_is_no_object_is_malformed(phases: object) -> None:
    with pytest.raises(MALFORMED):
        report_from_json({**report_to_json(RankReport(0, Verdict.SAT)), "phase_s": phases})


def test_the_name_of_a_strategy_is_no_strategy() -> None:
    job = Job("a", "b", "c", strategy=strategy_named("sp"), ranks=2, timeout_s=10.0)
    with pytest.raises(MALFORMED):
        job_from_json({**job_to_json(job), "strategy": "sp"})
