"""What a gang reported, and how it ended, as rows of the run folder. Nothing but rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from runner.contract.layout import Axis, Partition
from runner.contract.question import RankReport
from runner.contract.vocabulary import Cause, Memory, Meter, Phase, Verdict
from runner.contract.wire import MALFORMED, report_from_json
from runner.execute.executor import Ending, GangResult
from runner.record.schema import Outcome, RankRow
from runner.run.plan import Task

_DECIDED = frozenset({Verdict.SAT, Verdict.UNSAT})
_LACKS = frozenset({Cause.OUT_OF_MEMORY, Cause.DISK_FULL})
_COLUMN = {Memory.WEIGHTS: "weight"}  # of a kind, where it is not called as the kind is


class Answer(NamedTuple):
    """A verdict with its cause, and a message for people."""

    verdict: Verdict
    cause: Cause
    message: str = ""


def refused(task: Task, answer: Answer, prepare_time_s: float | None = None) -> Outcome:
    """The outcome of a task that no gang ran: everything else is not measured."""
    category, network, property_name, timeout_s, strategy, repeat = task.key()
    return Outcome(
        category=category,
        network=network,
        property=property_name,
        strategy=strategy,
        ranks=task.ranks,
        timeout_s=timeout_s,
        verdict=answer.verdict,
        cause=answer.cause,
        prepare_time_s=prepare_time_s,
        message=answer.message,
        repeat=repeat,
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
    present = [report for report in reports if report and _measured(report)]
    outcome = replace(
        refused(task, answer, prepare_time_s),
        late_answer=late,
        run_time_s=result.run_time_s,
        method=present[0].method if present else "",
        lower_bound=present[0].lower_bound if present else None,
        peak_tensor_bytes=_greatest(_metered(r, r.peak_tensor_bytes) for r in present),
        peak_rss_bytes=_greatest(r.peak_rss_bytes for r in present),
        peak_gpu_bytes=_greatest(r.peak_gpu_reserved_bytes for r in present),
        weight_bytes=_greatest(_metered(r, r.weight_bytes) for r in present),
        meter=present[0].meter if present else Meter.NONE,
        **_by_kind("at_peak", _at_the_greatest_peak(present)),
        **_searched_by_all(present, task.strategy.beside(Axis.DOMAINS, task.ranks)),
    )
    return outcome, [_rank_row(task, rank, report) for rank, report in enumerate(reports)]


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


def _ended_early(result: GangResult, reports: Sequence[RankReport | None]) -> Answer | None:
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


def _agreed(result: GangResult, reports: Sequence[RankReport | None]) -> Answer:
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


def _lacking(reports: Sequence[RankReport | None]) -> Answer | None:
    """What one rank lacked explains whatever its peers say of a broken connection."""
    for report in reports:
        if report and report.cause in _LACKS:
            message = f"rank {report.rank}: {report.message}"
            return Answer(Verdict.ERROR, report.cause, message)
    return None


def _failure(result: GangResult, reports: Sequence[RankReport | None]) -> Answer | None:
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


def _rank_row(task: Task, rank: int, report: RankReport | None) -> RankRow:
    category, network, property_name, timeout_s, strategy, repeat = task.key()
    row = RankRow(
        category=category,
        network=network,
        property=property_name,
        strategy=strategy,
        ranks=task.ranks,
        rank=rank,
        timeout_s=timeout_s,
        repeat=repeat,
    )
    if report is None or not _measured(report):
        return row
    return replace(
        row,
        device=report.device,
        wall_s=report.wall_s,
        cpu_s=report.cpu_s,
        load_s=report.phase_s.get(Phase.LOAD),
        attack_s=report.phase_s.get(Phase.ATTACK),
        incomplete_s=report.phase_s.get(Phase.INCOMPLETE),
        complete_s=report.phase_s.get(Phase.COMPLETE),
        meter=report.meter,
        weight_bytes=_metered(report, report.weight_bytes),
        peak_tensor_bytes=_metered(report, report.peak_tensor_bytes),
        peak_rss_bytes=report.peak_rss_bytes,
        peak_gpu_allocated_bytes=report.peak_gpu_allocated_bytes,
        peak_gpu_reserved_bytes=report.peak_gpu_reserved_bytes,
        nvml_peak_bytes=report.nvml_peak_bytes,
        comm_bytes=report.comm_bytes,
        comm_s=report.comm_s,
        collectives=report.collectives,
        **_by_kind("peak", report.peak_bytes),
        **_by_kind("at_peak", report.at_peak_bytes),
        **_searched(report),
    )


def _at_the_greatest_peak(reports: Sequence[RankReport]) -> Mapping[Memory, int]:
    """What the rank that needed the most held then; the parts add up to its peak."""
    worst = max(reports, key=lambda report: report.peak_tensor_bytes, default=None)
    return worst.at_peak_bytes if worst is not None else {}


def _by_kind(prefix: str, sizes: Mapping[Memory, int]) -> dict[str, Any]:
    """The columns of bytes of each kind; empty where they were not told apart."""
    return {f"{prefix}_{_COLUMN.get(kind, kind)}_bytes": size for kind, size in sizes.items()}


def _searched_by_all(reports: Sequence[RankReport], alike: Partition) -> dict[str, Any]:
    """Of the whole gang. `alike`: groups of ranks, each of which searched the same domains."""
    speakers = (next((r for r in reports if r.rounds and r.rank in group), None) for group in alike)
    searched = [report for report in speakers if report is not None]
    if not searched:
        return {}
    if len(alike) == 1:
        return _searched(searched[0])
    domains = sum(report.domains for report in searched)
    busy = [report for report in searched if report.domains_per_s > 0]
    seconds = max((report.domains / report.domains_per_s for report in busy), default=math.inf)
    return {
        "domains": domains,
        "rounds": max(report.rounds for report in searched),
        "domains_per_s": domains / seconds,
        "depth": max(report.depth for report in searched),
    }


def _searched(report: RankReport) -> dict[str, Any]:
    """What branch and bound did; without a round, it was not there."""
    if not report.rounds:
        return {}
    return {
        "domains": report.domains,
        "rounds": report.rounds,
        "domains_per_s": report.domains_per_s,
        "depth": report.depth,
    }


def _measured(report: RankReport) -> bool:
    """A rank that failed before it measured anything reports no time at all."""
    return report.wall_s > 0


def _metered(report: RankReport, value: int | None) -> int | None:
    """Without a meter, 0 means that nothing was measured."""
    return None if report.meter is Meter.NONE else value


def _greatest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
