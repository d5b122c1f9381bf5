"""How an ending and the reports of the ranks become a verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.contract.measurements import MEASURED, Measurements
from runner.contract.question import Report
from runner.contract.vocabulary import Cause, Meter, Verdict
from runner.contract.wire import report_to_json
from runner.execute.executor import Ending, GangResult
from runner.problem.instances import Instance
from runner.run.judge import judge, preparation_failure
from runner.run.plan import Task
from runner.verifiers.strategies import strategy_named

TIMEOUT_S = 10.0
INSTANCE = Instance(
    "digits", Path("/a/net.onnx"), Path("/a/prop.vnnlib"), TIMEOUT_S,
    "onnx/net.onnx", "vnnlib/prop.vnnlib", Path("/a/instances.csv"), 1,
)  # fmt: skip
TASK = Task(INSTANCE, strategy_named("fsdp"), 2, "net_prop")


def said(rank: int, verdict: Verdict, cause: Cause = Cause.NONE, **more: Any) -> dict[str, Any]:
    """`more`: fields of the report, or of what was measured."""
    costs = {name: more.pop(name) for name in MEASURED if name in more}
    measured = Measurements(**{"wall_s": 1.0, **costs})
    return report_to_json(Report(rank, verdict, cause, **more, measured=measured))


def both(verdict: Verdict, cause: Cause = Cause.NONE, **more: Any) -> tuple[dict[str, Any], ...]:
    return said(0, verdict, cause, **more), said(1, verdict, cause, **more)


def error(rank: int, cause: Cause, message: str = "") -> dict[str, Any]:
    return report_to_json(Report(rank, Verdict.ERROR, cause, message))


OOM = error(1, Cause.OUT_OF_MEMORY, "cannot allocate")
BROKEN_PIPE = error(0, Cause.INTERNAL_ERROR, "connection closed by peer")
CASES = {
    "an answer in time counts": (
        GangResult(Ending.FINISHED, 3.0, both(Verdict.UNSAT)),
        (Verdict.UNSAT, Cause.NONE, ""),
    ),
    "an answer at the very timeout counts": (
        GangResult(Ending.FINISHED, TIMEOUT_S, both(Verdict.UNSAT)),
        (Verdict.UNSAT, Cause.NONE, ""),
    ),
    "sat with a confirmed counterexample is sat": (
        GangResult(Ending.FINISHED, 3.0, both(Verdict.SAT, counterexample=True)),
        (Verdict.SAT, Cause.NONE, ""),
    ),
    "sat without one is an error": (
        GangResult(Ending.FINISHED, 3.0, both(Verdict.SAT)),
        (Verdict.ERROR, Cause.INVALID_COUNTEREXAMPLE, ""),
    ),
    "unknown keeps its cause": (
        GangResult(Ending.FINISHED, 3.0, both(Verdict.UNKNOWN, Cause.INCOMPLETE)),
        (Verdict.UNKNOWN, Cause.INCOMPLETE, ""),
    ),
    "an answer after the timeout is kept beside the verdict": (
        GangResult(Ending.FINISHED, 10.5, both(Verdict.UNSAT)),
        (Verdict.TIMEOUT, Cause.LATE_ANSWER, "unsat"),
    ),
    "sat without counterexample is no late answer": (
        GangResult(Ending.FINISHED, 10.5, both(Verdict.SAT)),
        (Verdict.TIMEOUT, Cause.INVALID_COUNTEREXAMPLE, "error"),
    ),
    "ranks that gave up in time": (
        GangResult(Ending.FINISHED, 9.9, both(Verdict.TIMEOUT, Cause.DEADLINE)),
        (Verdict.TIMEOUT, Cause.DEADLINE, ""),
    ),
    "ranks that gave up a little late": (
        GangResult(Ending.FINISHED, 10.1, both(Verdict.TIMEOUT, Cause.DEADLINE)),
        (Verdict.TIMEOUT, Cause.DEADLINE, ""),
    ),
    "killed at the deadline": (
        GangResult(Ending.KILLED_AT_DEADLINE, 12.3, (None, None)),
        (Verdict.TIMEOUT, Cause.KILLED_AT_DEADLINE, ""),
    ),
    "killed at the deadline after rank 0 had answered": (
        GangResult(Ending.KILLED_AT_DEADLINE, 12.3, (said(0, Verdict.UNSAT), None)),
        (Verdict.TIMEOUT, Cause.KILLED_AT_DEADLINE, "unsat"),
    ),
    "a rank was suspended": (
        GangResult(Ending.KILLED_AT_DEADLINE, 12.3, (None, None), stopped_ranks=(1,)),
        (Verdict.TIMEOUT, Cause.RANK_STOPPED, ""),
    ),
    "a rank died": (
        GangResult(Ending.RANK_DIED, 1.0, (None, None), 1, "signal 9 (SIGKILL)"),
        (Verdict.ERROR, Cause.RANK_DIED, ""),
    ),
    "a rank died because its peer ran out of memory": (
        GangResult(Ending.RANK_DIED, 1.0, (None, OOM), 0, "signal 6 (SIGABRT)"),
        (Verdict.ERROR, Cause.OUT_OF_MEMORY, ""),
    ),
    "out of memory explains a broken connection": (
        GangResult(Ending.FINISHED, 1.0, (BROKEN_PIPE, OOM), 0, "exit code 1"),
        (Verdict.ERROR, Cause.OUT_OF_MEMORY, ""),
    ),
    "a full disk explains a broken connection": (
        GangResult(Ending.FINISHED, 1.0, (BROKEN_PIPE, error(1, Cause.DISK_FULL)), 0, ""),
        (Verdict.ERROR, Cause.DISK_FULL, ""),
    ),
    "the rank that failed first speaks": (
        GangResult(
            Ending.FINISHED, 1.0, (BROKEN_PIPE, error(1, Cause.UNSUPPORTED_OPERATOR)), 1, ""
        ),
        (Verdict.ERROR, Cause.UNSUPPORTED_OPERATOR, ""),
    ),
    "an error of one rank is enough": (
        GangResult(Ending.FINISHED, 1.0, (None, error(1, Cause.MALFORMED_PROPERTY)), 1, ""),
        (Verdict.ERROR, Cause.MALFORMED_PROPERTY, ""),
    ),
    "an error after the timeout": (
        GangResult(Ending.FINISHED, 11.0, (None, OOM), 1, ""),
        (Verdict.TIMEOUT, Cause.OUT_OF_MEMORY, "error"),
    ),
    "ranks that disagree": (
        GangResult(Ending.FINISHED, 1.0, (said(0, Verdict.UNSAT), said(1, Verdict.UNKNOWN))),
        (Verdict.ERROR, Cause.INTERNAL_ERROR, ""),
    ),
    "a rank without a report": (
        GangResult(Ending.FINISHED, 1.0, (said(0, Verdict.UNSAT), None)),
        (Verdict.ERROR, Cause.INTERNAL_ERROR, ""),
    ),
    "a report that cannot be read": (
        GangResult(Ending.FINISHED, 1.0, ({"verdict": "perhaps"}, None)),
        (Verdict.ERROR, Cause.INTERNAL_ERROR, ""),
    ),
    "the server died": (
        GangResult(Ending.SERVER_DIED, 1.0, (None, None)),
        (Verdict.ERROR, Cause.RANK_DIED, ""),
    ),
}


@pytest.mark.parametrize(("result", "expected"), CASES.values(), ids=CASES.keys())
def test_verdict(result: GangResult, expected: tuple[Verdict, Cause, str]) -> None:
    outcome, ranks = judge(TASK, 0.5, result)

    assert (outcome.verdict, outcome.cause, outcome.late_answer) == expected
    assert [row.rank for row in ranks] == [0, 1]
    assert {row.key() for row in ranks} == {outcome.key()} == {TASK.key()}
    assert (outcome.prepare_time_s, outcome.run_time_s) == (0.5, result.run_time_s)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (CASES["a rank died"][0], ["rank 1", "SIGKILL"]),
        (CASES["a rank was suspended"][0], ["rank 1", "SIGSTOP"]),
        (CASES["ranks that disagree"][0], ["rank 0: unsat", "rank 1: unknown"]),
        (CASES["out of memory explains a broken connection"][0], ["rank 1", "cannot allocate"]),
    ],
)
def test_the_message_names_the_rank_and_what_happened(result: GangResult, words: list[str]) -> None:
    message = judge(TASK, None, result)[0].message

    assert all(word in message for word in words)


def test_the_outcome_has_the_greatest_of_the_ranks_and_the_rows_have_their_own() -> None:
    measured: dict[str, Any] = {
        "meter": Meter.DISPATCH,
        "load_s": 0.25,
        "attack_s": 0.5,
    }
    reports = (
        said(0, Verdict.UNSAT, weight_bytes=100, peak_tensor_bytes=700, peak_rss_bytes=9,
             lower_bound=1 / 3, method="crown", peak_a_bytes=64, peak_weight_bytes=30,
             at_peak_a_bytes=32, **measured),
        said(1, Verdict.UNSAT, weight_bytes=120, peak_tensor_bytes=600, peak_rss_bytes=11,
             comm_s=0.1, comm_bytes=10, collectives=2, **measured),
    )  # fmt: skip
    outcome, (first, second) = judge(TASK, None, GangResult(Ending.FINISHED, 1.0, reports))

    assert outcome.lower_bound == 1 / 3
    assert outcome.method == "crown"
    assert outcome.meter is Meter.DISPATCH
    assert outcome.weight_bytes == 120
    assert (outcome.peak_tensor_bytes, outcome.peak_rss_bytes) == (700, 11)
    assert (outcome.peak_gpu_reserved_bytes, outcome.at_peak_a_bytes) == (None, 32)
    assert (first.load_s, first.attack_s, first.complete_s) == (0.25, 0.5, None)
    assert (first.peak_a_bytes, first.peak_alpha_bytes, first.weight_bytes) == (64, None, 100)
    assert (first.peak_weight_bytes, first.at_peak_a_bytes) == (30, 32)
    assert (second.comm_bytes, second.comm_s, second.collectives) == (10, 0.1, 2)


@pytest.mark.parametrize(
    ("strategy", "expected"), [("fsdp", (300, 3, 30.0, 5)), ("dp", (400, 4, 40.0, 7))]
)
def test_domains_of_ranks_that_search_apart_are_summed(
    strategy: str, expected: tuple[int, int, float, int]
) -> None:
    """Over the seconds of the rank that searched the longest: 300 domains at 30 a second."""
    reports = (
        said(0, Verdict.UNSAT, domains=300, rounds=3, domains_per_s=30.0, depth=5),
        said(1, Verdict.UNSAT, domains=100, rounds=4, domains_per_s=20.0, depth=7),
        said(2, Verdict.UNSAT),
    )
    result = GangResult(Ending.FINISHED, 1.0, reports)
    outcome, rows = judge(replace(TASK, strategy=strategy_named(strategy), ranks=3), None, result)

    assert (outcome.domains, outcome.rounds, outcome.domains_per_s, outcome.depth) == expected
    assert [row.domains for row in rows] == [300, 100, None]


def test_what_was_not_measured_is_empty_and_not_zero() -> None:
    result = GangResult(Ending.FINISHED, 1.0, (None, OOM), 1, "exit code 1")
    outcome, (silent, failed) = judge(TASK, None, result)

    assert outcome.peak_tensor_bytes is None
    assert outcome.weight_bytes is None
    for row in (silent, failed):
        assert (row.wall_s, row.peak_rss_bytes, row.comm_bytes, row.device) == (
            None, None, None, ""
        )  # fmt: skip


def test_what_a_rank_measured_before_it_failed_is_recorded() -> None:
    oom = said(1, Verdict.ERROR, Cause.OUT_OF_MEMORY, meter=Meter.DISPATCH, peak_tensor_bytes=900)
    outcome, (silent, failed) = judge(TASK, None, GangResult(Ending.FINISHED, 1.0, (None, oom), 1))

    assert outcome.cause is Cause.OUT_OF_MEMORY
    assert (outcome.peak_tensor_bytes, outcome.weight_bytes) == (900, None), "it was yet to load"
    assert (silent.wall_s, failed.wall_s, failed.peak_tensor_bytes) == (None, 1.0, 900)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (GangResult(Ending.FINISHED, 1.0, ({"inputs": 5, "outputs": 2},)), None),
        (
            GangResult(Ending.FINISHED, 1.0, (error(0, Cause.UNSUPPORTED_OPERATOR, "Einsum"),), 0),
            (Verdict.ERROR, Cause.UNSUPPORTED_OPERATOR, "Einsum"),
        ),
        (
            GangResult(Ending.FINISHED, 1.0, (error(0, Cause.OUT_OF_MEMORY, "no more"),), 0),
            (Verdict.ERROR, Cause.OUT_OF_MEMORY, "while preparing the network: no more"),
        ),
        (
            GangResult(Ending.RANK_DIED, 1.0, (None,), 0, "signal 11 (SIGSEGV)"),
            (Verdict.ERROR, Cause.RANK_DIED,
             "while preparing the network: rank 0 died: signal 11 (SIGSEGV)"),
        ),
        (
            GangResult(Ending.KILLED_AT_DEADLINE, 602.25, (None,)),
            (Verdict.TIMEOUT, Cause.KILLED_AT_DEADLINE,
             "while preparing the network: killed after 602.2 s: the ranks did not stop in time"),
        ),
        (
            GangResult(Ending.FINISHED, 1.0, (None,)),
            (Verdict.ERROR, Cause.INTERNAL_ERROR, "preparing left no report"),
        ),
    ],
)  # fmt: skip
def test_why_preparing_failed(result: GangResult, expected: tuple[str, str, str] | None) -> None:
    assert preparation_failure(result) == expected
