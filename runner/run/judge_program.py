"""What another verifier's program said, and how it ended, as rows. Nothing but rules."""

from __future__ import annotations

from dataclasses import replace

from runner.contract.measurements import Measurements, of_gang
from runner.contract.verifier import Said
from runner.contract.vocabulary import Cause, Verdict
from runner.execute.program import ProgramEnd, ProgramResult
from runner.problem.claim import Checked
from runner.record.schema import Outcome, RankRow
from runner.run.judge import Answer, in_time, rank_row, refused
from runner.run.plan import Task
from runner.run.step import how_it_ended

_NAMES_SHOWN = 5


def judge_program(
    task: Task, prepare_time_s: float | None, result: ProgramResult, answer: Answer, heard: Answer
) -> tuple[Outcome, list[RankRow]]:
    """The outcome, and one row as of a rank: all its processes together.

    `answer`: as `answered` gives it; `heard`: what it said, believed or not.
    """
    counts, late = in_time(answer, heard.verdict, result.run_time_s, task.key().timeout_s)
    measured = Measurements(
        wall_s=result.run_time_s,
        cpu_s=result.cpu_s,
        peak_rss_bytes=result.peak_rss_bytes,
        nvml_peak_bytes=result.peak_gpu_bytes,
    )
    outcome = replace(
        refused(task, counts, prepare_time_s),
        late_answer=late,
        run_time_s=result.run_time_s,
        **of_gang([measured], {}),
    )
    return outcome, [rank_row(task, 0, measured)]


def believed(said: Said, checked: Checked | None, last_error: str) -> Answer:
    """What counts of an answer; `checked`: what the replay of its counterexample found."""
    match said.verdict:
        case None:
            return Answer(Verdict.ERROR, Cause.UNREADABLE_ANSWER, _with(said.message, last_error))
        case Verdict.SAT:
            return _sat(checked)
        case Verdict.UNKNOWN:
            return Answer(said.verdict, Cause.UNDECIDED)
        case Verdict.TIMEOUT:
            return Answer(said.verdict, Cause.DEADLINE)
        case Verdict.ERROR:
            return Answer(said.verdict, Cause.VERIFIER_FAILED, _with("it says error", last_error))
        case _:
            return Answer(said.verdict, Cause.NONE)


def _sat(checked: Checked | None) -> Answer:
    if checked is None:
        message = "sat without a counterexample"
        return Answer(Verdict.ERROR, Cause.INVALID_COUNTEREXAMPLE, message)
    match checked.cause:
        case Cause.NONE:
            return Answer(Verdict.SAT, Cause.NONE)
        case Cause.OUTSIDE_BOX:
            return Answer(Verdict.UNKNOWN, checked.cause, checked.message)
        case _:
            return Answer(Verdict.ERROR, checked.cause, checked.message)


def answered(heard: Answer, result: ProgramResult, last_error: str) -> Answer:
    """What is said of the instance: `heard` only of a program that ended well."""
    how = how_it_ended(result)
    match result.ended:
        case ProgramEnd.FINISHED if result.exit_code == 0:
            answer = heard
        case ProgramEnd.FINISHED:
            answer = Answer(Verdict.ERROR, Cause.VERIFIER_FAILED, _with(how, last_error))
        case ProgramEnd.KILLED_AT_DEADLINE:
            message = f"{how}: it did not stop in time"
            answer = Answer(Verdict.TIMEOUT, Cause.KILLED_AT_DEADLINE, message)
        case ProgramEnd.OUT_OF_MEMORY:
            answer = Answer(Verdict.ERROR, Cause.OUT_OF_MEMORY, how)
        case _:
            answer = Answer(Verdict.ERROR, Cause.INTERNAL_ERROR, how)
    if not result.left_behind:
        return answer
    names = ", ".join(result.left_behind[:_NAMES_SHOWN])
    left = f"processes outlived it and were killed: {len(result.left_behind)} ({names})"
    return answer._replace(message="; ".join(filter(None, (answer.message, left))))


def unprepared(result: ProgramResult, what: str, last_error: str) -> Answer | None:
    """Why preparing failed; None when it did not."""
    how = how_it_ended(result)
    match result.ended:
        case ProgramEnd.FINISHED if result.exit_code == 0:
            return None
        case ProgramEnd.KILLED_AT_DEADLINE:
            return Answer(Verdict.TIMEOUT, Cause.KILLED_AT_DEADLINE, f"{what} was {how}")
        case ProgramEnd.OUT_OF_MEMORY:
            return Answer(Verdict.ERROR, Cause.OUT_OF_MEMORY, f"{what} was {how}")
        case _:
            message = _with(f"{what} failed ({how})", last_error)
            return Answer(Verdict.ERROR, Cause.PREPARE_FAILED, message)


def _with(message: str, last_error: str) -> str:
    return f"{message}: {last_error}" if last_error else message
