"""Jobs and reports survive the way through JSON."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.contract.measurements import Measurements
from runner.contract.question import CONTRACT_VERSION, Question, Report
from runner.contract.vocabulary import Cause, Meter, Verdict
from runner.contract.wire import (
    MALFORMED,
    question_from_json,
    question_to_json,
    report_from_json,
    report_to_json,
)
from runner.contract.workload import Workload
from runner.verifiers.strategies import STRATEGIES, strategy_named

_seconds = st.floats(min_value=0, allow_nan=False)
_bytes = st.integers(0, 1 << 62)

workloads = st.builds(Workload, rounds=st.integers(1), batch=st.integers(1).map(lambda n: 2 * n))
jobs = st.builds(
    Question,
    strategy=st.sampled_from(sorted(STRATEGIES)).map(strategy_named),
    memory_limit_bytes=st.none() | _bytes,
    timeout_s=_seconds,
    workload=st.none() | workloads,
    work_bytes=st.none() | _bytes,
)
measurements = st.builds(
    Measurements, wall_s=st.none() | _seconds, meter=st.sampled_from(Meter), domains=_bytes
)
reports = st.builds(
    Report, lower_bound=st.none() | st.floats(allow_nan=False), measured=measurements
)


@given(jobs)
def test_a_job_comes_back_as_it_was(job: Question) -> None:
    assert question_from_json(json.loads(json.dumps(question_to_json(job)))) == job


@given(reports)
def test_a_report_comes_back_as_it_was(report: Report) -> None:
    assert report_from_json(json.loads(json.dumps(report_to_json(report)))) == report


def test_words_come_back_as_members_of_their_sets() -> None:
    measured = Measurements(meter=Meter.CUDA)
    report = Report(0, Verdict.ERROR, Cause.OUT_OF_MEMORY, measured=measured)
    back = report_from_json(json.loads(json.dumps(report_to_json(report))))
    assert isinstance(back.verdict, Verdict)
    assert isinstance(back.cause, Cause)
    assert isinstance(back.measured.meter, Meter)


def test_a_word_outside_its_set_is_refused() -> None:
    data = report_to_json(Report(0, Verdict.SAT))
    with pytest.raises(ValueError, match="maybe"):
        report_from_json({**data, "verdict": "maybe"})


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(MALFORMED, match="colour"):
        report_from_json({**report_to_json(Report(0, Verdict.SAT)), "colour": "red"})


@pytest.mark.parametrize("measured", ["none", 3, [1]])
def test_what_is_no_object_is_malformed(measured: object) -> None:
    with pytest.raises(MALFORMED):
        report_from_json({**report_to_json(Report(0, Verdict.SAT)), "measured": measured})


@pytest.mark.parametrize("kind", [Question, Report, Measurements])
def test_every_field_says_what_it_is(kind: type) -> None:
    (made,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(made, ast.ClassDef)
    fields = [
        (here.target.id, below)
        for here, below in zip(made.body, [*made.body[1:], None], strict=True)
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name)
    ]
    said = {
        name
        for name, below in fields
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }
    assert said == {field.name for field in dataclasses.fields(kind)}


def test_an_answer_under_another_contract_is_refused() -> None:
    data = report_to_json(Report(0, Verdict.SAT))
    with pytest.raises(ValueError, match="version"):
        report_from_json({**data, "version": CONTRACT_VERSION + 1})


def test_the_name_of_a_strategy_is_no_strategy() -> None:
    job = Question("a", "b", "c", strategy=strategy_named("sp"), ranks=2, timeout_s=10.0)
    with pytest.raises(MALFORMED):
        question_from_json({**question_to_json(job), "strategy": "sp"})
