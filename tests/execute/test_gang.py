"""A gang ends as its ranks do, and never later than its deadline allows."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.contract.vocabulary import Cause
from runner.execute.executor import Ending, Gang, GangResult
from runner.execute.gang import RankServer

pytestmark = pytest.mark.alone

Run = Callable[..., GangResult]
MEGA = 1 << 20


@pytest.fixture(autouse=True)
def _no_process_is_left(rank_server: RankServer) -> Iterator[None]:
    yield
    rank_server.wait_ready()
    assert psutil.Process(rank_server.pid).children(recursive=True) == []


def _report(result: GangResult, rank: int = 0) -> dict[str, Any]:
    report = result.reports[rank]
    assert report is not None
    return report


def _cause(result: GangResult, rank: int = 0) -> str:
    return str(_report(result, rank)["cause"])


def _pids(folder: Path, ranks: int) -> list[int]:
    """Of the ranks of `all_reduce_without_end`, once all of them are in it."""
    paths = [folder / f"pid{rank}" for rank in range(ranks)]
    give_up = time.monotonic() + 20
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return [int(path.read_text()) for path in paths]


def _meanwhile(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


# --- what ranks get and give


def test_every_rank_gets_the_payload_and_its_report_comes_back(run: Run) -> None:
    result = run("echo", ranks=3, colour="red", numbers=[1, 2.5])
    payload = {"colour": "red", "numbers": [1, 2.5]}
    assert result.ended is Ending.FINISHED
    assert result.reports == tuple({"rank": rank, "payload": payload} for rank in range(3))
    assert (result.dead_rank, result.how, result.stopped_ranks) == (None, "", ())


def test_ranks_find_the_environment_of_torch_distributed(run: Run, tmp_path: Path) -> None:
    result = run("environment", ranks=2)
    for rank, environment in enumerate(result.reports):
        assert environment is not None
        assert environment["RANK"] == environment["LOCAL_RANK"] == str(rank)
        assert environment["WORLD_SIZE"] == "2"
        assert environment["MASTER_ADDR"] == "127.0.0.1"
        assert environment["RENDEZVOUS"] == str(tmp_path / "gang" / "rendezvous")


def test_a_rank_starts_with_one_thread(run: Run) -> None:
    assert run("threads").reports == ({"torch": 1, "process": 1},)


def test_what_a_rank_prints_is_in_its_log(run: Run, tmp_path: Path) -> None:
    run("talk")
    log = (tmp_path / "gang" / "rank0.log").read_text()
    assert all(words in log for words in ("to stdout", "to stderr", "below Python"))


def test_ranks_reduce_over_a_file_rendezvous(run: Run) -> None:
    for _ in range(2):  # the second gang meets in the same folder
        assert run("all_reduce", ranks=3).reports == ({"sum": 6.0},) * 3


def test_collectives_pass_through_the_meter_of_tensors(run: Run) -> None:
    result = run("all_reduce_metered", ranks=2)
    assert result.reports == ({"first": 3.0, "live_bytes": 4096},) * 2


def test_reports_of_an_earlier_gang_are_not_taken_for_this_ones(run: Run) -> None:
    run("echo", ranks=2)
    assert run("exit_at_once", ranks=1, code=3).reports == (None,)


# --- errors that a rank reports


def test_an_instance_error_keeps_its_cause_and_words(run: Run) -> None:
    result = run("raise_instance_error")
    assert result.ended is Ending.FINISHED
    assert _cause(result) == Cause.MALFORMED_PROPERTY
    assert _report(result)["message"] == "x.vnnlib, line 3: not a number"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("raise_value_error", "ValueError: seven"),
        ("leave", "SystemExit: goodbye"),
        ("no_such_target", "AttributeError"),
        ("unserialisable", "TypeError: Object of type object is not JSON serializable"),
    ],
)
def test_any_other_error_is_internal_with_its_traceback_in_the_log(
    run: Run, tmp_path: Path, target: str, message: str
) -> None:
    result = run(target)
    assert result.ended is Ending.FINISHED
    assert _cause(result) == Cause.INTERNAL_ERROR
    assert message in _report(result)["message"]
    log = (tmp_path / "gang" / "rank0.log").read_text()
    assert "Traceback" in log
    assert message in log


def test_a_reported_error_ends_the_others_at_once(run: Run) -> None:
    result = run("rank_1_fails_others_sleep", ranks=3, seconds=60)
    assert result.run_time_s < 1
    assert result.ended is Ending.FINISHED
    assert (result.dead_rank, result.how) == (1, "exit code 1")
    assert _cause(result, rank=1) == Cause.INTERNAL_ERROR
    assert result.reports[0] is result.reports[2] is None


# --- memory


@pytest.mark.parametrize("target", ["allocate_torch", "allocate_numpy", "allocate_python"])
def test_memory_beyond_the_cap_is_reported_as_out_of_memory(run: Run, target: str) -> None:
    result = run(target, memory_limit_bytes=64 * MEGA, bytes=128 * MEGA)
    assert result.ended is Ending.FINISHED
    assert _cause(result) == Cause.OUT_OF_MEMORY


@pytest.mark.parametrize("target", ["allocate_torch", "allocate_numpy", "allocate_python"])
def test_memory_within_the_cap_is_given(run: Run, target: str) -> None:
    result = run(target, memory_limit_bytes=128 * MEGA, bytes=64 * MEGA)
    assert result.dead_rank is None


def test_a_rank_out_of_memory_ends_those_that_wait_for_it(run: Run) -> None:
    result = run("rank_1_out_of_memory", ranks=2, memory_limit_bytes=256 * MEGA)
    assert result.run_time_s < 2
    assert result.dead_rank == 1
    assert _cause(result, rank=1) == Cause.OUT_OF_MEMORY


# --- ranks that die


def test_an_exit_without_a_report_is_a_death(run: Run) -> None:
    result = run("exit_at_once", code=3)
    assert result.ended is Ending.RANK_DIED
    assert (result.dead_rank, result.how) == (0, "exit code 3")
    assert result.reports == (None,)


def test_even_a_good_exit_without_a_report_is_a_death(run: Run) -> None:
    assert run("exit_at_once", code=0).ended is Ending.RANK_DIED


@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGKILL, "signal 9 (SIGKILL)"), (signal.SIGSEGV, "signal 11 (SIGSEGV)")],
)
def test_a_rank_killed_by_a_signal_takes_its_gang_with_it(
    run: Run, number: signal.Signals, how: str
) -> None:
    result = run("signal_self", ranks=3, rank=2, signal=int(number), seconds=60)
    assert result.run_time_s < 1
    assert result.ended is Ending.RANK_DIED
    assert (result.dead_rank, result.how) == (2, how)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_rank_killed_in_a_collective_takes_its_gang_with_it(
    run: Run, tmp_path: Path, victim: int
) -> None:
    kill = _meanwhile(lambda: os.kill(_pids(tmp_path, 3)[victim], signal.SIGKILL))
    result = run("all_reduce_without_end", ranks=3, folder=str(tmp_path))
    kill.join()
    assert result.run_time_s < 5
    assert result.ended is Ending.RANK_DIED
    assert (result.dead_rank, result.how) == (victim, "signal 9 (SIGKILL)")


# --- the deadline


def _assert_killed_in_time(result: GangResult, timeout_s: float, grace_s: float) -> None:
    assert result.ended is Ending.KILLED_AT_DEADLINE
    assert timeout_s + grace_s <= result.run_time_s < timeout_s + grace_s + 1
    assert result.dead_rank is None


@pytest.mark.parametrize("target", ["sleep", "ignore_term"])
def test_a_gang_that_overruns_is_gone_within_the_grace_and_a_second(run: Run, target: str) -> None:
    result = run(target, ranks=2, timeout_s=0.3, grace_s=0.2, seconds=60)
    _assert_killed_in_time(result, 0.3, 0.2)
    assert run("echo").ended is Ending.FINISHED  # and the next one starts


def test_the_log_of_a_killed_rank_shows_where_it_was(run: Run, tmp_path: Path) -> None:
    run("sleep", timeout_s=0.2, grace_s=0.1, seconds=60)
    assert "targets.py" in (tmp_path / "gang" / "rank0.log").read_text()


def test_what_a_rank_reported_before_the_deadline_is_kept(run: Run) -> None:
    result = run("rank_1_sleeps", ranks=2, timeout_s=0.3, grace_s=0.1, seconds=60)
    _assert_killed_in_time(result, 0.3, 0.1)
    assert result.reports == ({"rank": 0}, None)


def test_a_gang_within_the_grace_finishes(run: Run) -> None:
    result = run("sleep", timeout_s=0.1, grace_s=5.0, seconds=0.3)
    assert result.ended is Ending.FINISHED
    assert result.run_time_s >= 0.3


def test_a_stopped_rank_is_named_and_killed_at_the_deadline(run: Run) -> None:
    stop = int(signal.SIGSTOP)
    result = run("signal_self", 2, 0.3, grace_s=0.1, rank=1, signal=stop, seconds=60)
    _assert_killed_in_time(result, 0.3, 0.1)
    assert result.stopped_ranks == (1,)


def test_a_rank_stopped_in_a_collective_is_named(run: Run, tmp_path: Path) -> None:
    stop = _meanwhile(lambda: os.kill(_pids(tmp_path, 2)[0], signal.SIGSTOP))
    result = run("all_reduce_without_end", 2, 1.0, grace_s=0.2, folder=str(tmp_path))
    stop.join()
    _assert_killed_in_time(result, 1.0, 0.2)
    assert result.stopped_ranks == (0,)


def test_a_rank_that_was_continued_is_not_called_stopped(run: Run, tmp_path: Path) -> None:
    result = run("stop_and_continue", ranks=2, folder=str(tmp_path), seconds=0.1)
    assert result.ended is Ending.FINISHED
    assert result.stopped_ranks == ()


# --- a server is left in the middle


def test_gangs_wait_for_their_turn_and_any_thread_may_submit(
    rank_server: RankServer, tmp_path: Path
) -> None:
    first, second = (
        rank_server.submit(Gang("targets:echo", {"number": number}, 1, tmp_path / str(number), 20))
        for number in (1, 2)
    )
    assert [_report(gang.result())["payload"]["number"] for gang in (second, first)] == [2, 1]


def test_leaving_ends_the_gang_that_runs_and_cancels_those_that_wait(tmp_path: Path) -> None:
    with RankServer(tmp_path / "log", ("targets",)) as server:
        running = server.submit(Gang("targets:sleep", {"seconds": 60}, 1, tmp_path / "a", 60))
        waiting = server.submit(Gang("targets:echo", {}, 1, tmp_path / "b", 60))
        give_up = time.monotonic() + 60
        while not (ranks := psutil.Process(server.pid).children()):
            assert time.monotonic() < give_up
            time.sleep(0.01)
    assert running.result(0).ended is Ending.SERVER_DIED
    assert waiting.cancelled()
    assert not psutil.wait_procs(ranks, 2)[1]
    assert not (tmp_path / "b").exists()
