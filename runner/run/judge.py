"""What a gang reported, and how it ended, as rows of the run folder. Nothing but rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from runner.contract.layout import Axis, Partition
from runner.contract.measurements import MEASURED, Measurements, of_gang
from runner.contract.question import Report
from runner.contract.vocabulary import Cause, Verdict
from runner.contract.wire import MALFORMED, report_from_json
from runner.execute.executor import Ending, GangResult
from runner.record.schema import Outcome, RankRow
from runner.run.plan import Task

_DECIDED = frozenset({Verdict.SAT, Verdict.UNSAT})
_LACKS = frozenset({Cause.OUT_OF_MEMORY, Cause.DISK_FULL})
_SEARCH = ("domains", "rounds", "domains_per_s", "depth")


class Answer(NamedTuple):
    """A verdict with its cause, and a message for people."""

    verdict: Verdict
    cause: Cause
    message: str = ""


def refused(task: Task, answer: Answer, prepare_time_s: float | None = None) -> Outcome:
    """The outcome of a task that no gang ran: everything else is not measured."""
    return Outcome(
        **task.key()._asdict(),
        ranks=task.ranks,
        verdict=answer.verdict,
        cause=answer.cause,
        message=answer.message,
        prepare_time_s=prepare_time_s,
    )


def judge(
    task: Task, prepare_time_s: float | None, result: GangResult
) -> tuple[Outcome, list[RankRow]]:
    """The outcome and a row per rank.

    As in VNN-COMP, whatever came after the timeout is `timeout`; the answer stays in
    `late_answer`. `sat` without a confirmed counterexample is an error, never `sat`.
    """
    try:
        reports = [report_from_json(report) if report else None for report in result.reports]
        said = _ended_early(result, reports) or _agreed(result, reports)
    except MALFORMED as error:
        reports = [None] * task.ranks
        said = Answer(Verdict.ERROR, Cause.INTERNAL_ERROR, f"unreadable report: {error!r}")
    heard = reports[0].verdict if reports[0] else None
    answer, late = in_time(said, heard, result.run_time_s, task.key().timeout_s)
    present = [report for report in reports if report and report.measured.wall_s is not None]
    measured = [report.measured for report in present]
    search = _searched_by_all(present, task.strategy.beside(Axis.DOMAINS, task.ranks))
    outcome = replace(
        refused(task, answer, prepare_time_s),
        late_answer=late,
        run_time_s=result.run_time_s,
        method=present[0].method if present else "",
        lower_bound=present[0].lower_bound if present else None,
        **of_gang(measured, search),
    )
    return outcome, [
        # Nothing is measured of a rank that left no report.
        rank_row(task, rank, report.measured if report else Measurements())
        for rank, report in enumerate(reports)
    ]


def preparation_failure(result: GangResult) -> Answer | None:
    """Why preparing a network failed; None when it did not."""
    report = result.reports[0]
    if report and "cause" in report:
        failure = Answer(Verdict.ERROR, Cause(report["cause"]), f"{report['message']}")
        return _preparing(failure) if failure.cause in _LACKS else failure
    ending = _ended_early(result, ())
    if ending:
        return _preparing(ending)
    if report is None:
        return Answer(Verdict.ERROR, Cause.INTERNAL_ERROR, "preparing left no report")
    return None


def _preparing(answer: Answer) -> Answer:
    """With words that tell it from what is said of verifying."""
    return answer._replace(message=f"while preparing the network: {answer.message}")


def _ended_early(result: GangResult, reports: Sequence[Report | None]) -> Answer | None:
    """What is said of a gang that did not finish; None when it did."""
    match result.ended:
        case Ending.FINISHED:
            return None
        case Ending.KILLED_AT_DEADLINE if result.stopped_ranks:
            ranks = ", ".join(map(str, result.stopped_ranks))
            message = f"suspended (SIGSTOP) when the deadline came: rank {ranks}"
            return Answer(Verdict.TIMEOUT, Cause.RANK_STOPPED, message)
        case Ending.KILLED_AT_DEADLINE:
            message = f"killed after {result.run_time_s:.1f} s: the ranks did not stop in time"
            return Answer(Verdict.TIMEOUT, Cause.KILLED_AT_DEADLINE, message)
        case Ending.RANK_DIED:
            # A rank that runs out of memory or disk may take down a peer before its end is seen.
            message = f"rank {result.dead_rank} died: {result.how}"
            return _lacking(reports) or Answer(Verdict.ERROR, Cause.RANK_DIED, message)
        case Ending.SERVER_DIED:
            message = "the rank server died, and every rank with it; it was started anew"
            return Answer(Verdict.ERROR, Cause.RANK_DIED, message)


def _agreed(result: GangResult, reports: Sequence[Report | None]) -> Answer:
    """What the ranks of a gang that finished say together: rank 0's words, if all agree."""
    failure = _lacking(reports) or _failure(result, reports)
    if failure:
        return failure
    silent = [rank for rank, report in enumerate(reports) if report is None]
    if silent:
        message = f"rank {silent[0]} left no report"
        return Answer(Verdict.ERROR, Cause.INTERNAL_ERROR, message)
    present = [report for report in reports if report]
    if len({report.verdict for report in present}) > 1:
        said = ", ".join(f"rank {report.rank}: {report.verdict}" for report in present)
        return Answer(Verdict.ERROR, Cause.INTERNAL_ERROR, f"the ranks disagree ({said})")
    speaker = present[0]
    if speaker.verdict is Verdict.SAT and not speaker.counterexample:
        message = speaker.message or "sat without a counterexample that ONNX Runtime confirms"
        return Answer(Verdict.ERROR, Cause.INVALID_COUNTEREXAMPLE, message)
    return Answer(speaker.verdict, speaker.cause, speaker.message)


def _lacking(reports: Sequence[Report | None]) -> Answer | None:
    """What one rank lacked explains whatever its peers say of a broken connection."""
    for report in reports:
        if report and report.cause in _LACKS:
            message = f"rank {report.rank}: {report.message}"
            return Answer(Verdict.ERROR, report.cause, message)
    return None


def _failure(result: GangResult, reports: Sequence[Report | None]) -> Answer | None:
    """The error of the rank that failed first, else of any."""
    failed = [report for report in reports if report and report.verdict is Verdict.ERROR]
    failed.sort(key=lambda report: report.rank != result.dead_rank)
    if not failed:
        return None
    return Answer(Verdict.ERROR, failed[0].cause, failed[0].message)


def in_time(
    said: Answer, heard: Verdict | None, run_time_s: float, timeout_s: float | None
) -> tuple[Answer, str]:
    """The answer that counts, and the one that came too late (empty when there is none).

    `heard`: what was answered before the end, whatever the end was.
    """
    if said.verdict is Verdict.TIMEOUT:
        return said, str(heard) if heard in _DECIDED else ""
    if timeout_s is None or run_time_s <= timeout_s:
        return said, ""
    cause = said.cause if said.verdict is Verdict.ERROR else Cause.LATE_ANSWER
    return Answer(Verdict.TIMEOUT, cause, said.message), str(said.verdict)


def rank_row(task: Task, rank: int, measured: Measurements) -> RankRow:
    return RankRow(
        **task.key()._asdict(),
        ranks=task.ranks,
        rank=rank,
        **{name: getattr(measured, name) for name in MEASURED},
    )


def _searched_by_all(reports: Sequence[Report], alike: Partition) -> dict[str, Any]:
    """What branch and bound did; `alike`: groups of ranks that each searched the same domains."""
    of_rank = {report.rank: report.measured for report in reports if report.measured.rounds}
    speakers = (next((of_rank[rank] for rank in group if rank in of_rank), None) for group in alike)
    searched = [measured for measured in speakers if measured is not None]
    if len(searched) < 2:
        return {name: getattr(searched[0], name) for name in _SEARCH} if searched else {}
    domains = sum(measured.domains or 0 for measured in searched)
    seconds = max(
        (
            measured.domains / measured.domains_per_s
            for measured in searched
            if measured.domains and measured.domains_per_s
        ),
        default=math.inf,
    )
    return {
        "domains": domains,
        "rounds": max(measured.rounds or 0 for measured in searched),
        "domains_per_s": domains / seconds,
        "depth": max(measured.depth or 0 for measured in searched),
    }
