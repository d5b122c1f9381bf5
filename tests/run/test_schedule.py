"""The loop of a run, with a stand-in for the rank server; and killed at any moment."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_server import FakeServer, Silent, answer, make_category

from runner.contract.question import Report
from runner.contract.vocabulary import Cause, Verdict
from runner.contract.wire import report_to_json
from runner.execute.executor import Ending, GangResult
from runner.record import append, folder
from runner.record.append import DiskFullError
from runner.record.folder import open_run
from runner.record.manifest import Command, Status, read_manifest
from runner.record.schema import Outcome
from runner.run.plan import plan
from runner.run.schedule import schedule

pytestmark = pytest.mark.alone

STRATEGIES = ("baseline", "fsdp")


def run(
    category: Path, results: Path, server: FakeServer | None = None, **options: Any
) -> tuple[Path, list[Outcome]]:
    """Runs a category, or what is left of it; gives the run folder and what was recorded now."""
    command = replace(Command((str(category),), STRATEGIES, 2), **options)
    tasks, observer = plan(command), Silent()
    with open_run(results, command, len(tasks)) as run_folder:
        schedule(tasks, command, run_folder, server or FakeServer(), observer)
    return run_folder.path, observer.outcomes


def content(run_folder: Path) -> dict[str, bytes]:
    """Everything a run left, but for run.json and the lock, which tell of processes."""
    return {
        str(path.relative_to(run_folder)): path.read_bytes()
        for path in sorted(run_folder.rglob("*"))
        if path.is_file() and path.name not in {"run.json", "lock"}
    }


def test_every_task_is_run_and_each_network_prepared_once(tmp_path: Path) -> None:
    server = FakeServer()
    run_folder, outcomes = run(make_category(tmp_path / "digits", 4), tmp_path / "r", server)

    assert server.prepared == ["net0.onnx", "net1.onnx", "net2.onnx"]
    assert server.verified == [
        (f"prop{number}.vnnlib", strategy) for number in range(4) for strategy in STRATEGIES
    ]
    assert [outcome.ranks for outcome in outcomes[:2]] == [1, 2]
    assert {outcome.prepare_time_s for outcome in outcomes} == {0.125}
    assert not (run_folder / "scratch").exists()


def test_everything_runs_once_before_anything_is_repeated(tmp_path: Path) -> None:
    category, server = make_category(tmp_path / "digits", 2), FakeServer()
    run_folder, outcomes = run(category, tmp_path / "r", server, repeat=2)

    assert server.verified[:4] == server.verified[4:]
    assert [outcome.repeat for outcome in outcomes] == [1] * 4 + [2] * 4
    official = (run_folder / "fsdp" / "digits" / "results.csv").read_text()
    assert len(official.splitlines()) == 2, "one answer to a question"


def test_null_needs_no_prepared_network(tmp_path: Path) -> None:
    server = FakeServer()
    run(make_category(tmp_path / "digits", 2), tmp_path / "r", server, strategies=("null",))

    assert server.prepared == []
    assert len(server.verified) == 2


def test_the_memory_limit_holds_for_preparing_and_verifying(tmp_path: Path) -> None:
    server = FakeServer()
    run(make_category(tmp_path / "digits", 1), tmp_path / "r", server, memory_limit_gib=0.5)

    assert server.limits == {2**29}


def test_what_ranks_say_is_kept_and_their_silence_is_not(tmp_path: Path) -> None:
    category = make_category(tmp_path / "digits", 1)
    loud, _ = run(category, tmp_path / "loud", FakeServer(log="warning"))
    silent, _ = run(category, tmp_path / "silent", FakeServer())

    logs = sorted(str(path.relative_to(loud / "logs")) for path in loud.glob("logs/*/*/*"))
    assert logs == [
        "baseline/digits/net0_prop0.rank0.log",
        "fsdp/digits/net0_prop0.rank0.log",
        "fsdp/digits/net0_prop0.rank1.log",
    ]
    assert not (silent / "logs").exists()


def test_a_malformed_row_is_an_error_under_every_strategy_and_the_rest_runs(
    tmp_path: Path,
) -> None:
    category = make_category(tmp_path / "digits", 1, extra="net0.onnx,prop0.vnnlib,soon\n")
    _, outcomes = run(category, tmp_path / "r")

    assert [outcome.cause for outcome in outcomes[2:]] == [Cause.MALFORMED_INSTANCE] * 2
    assert "instances.csv:2" in outcomes[2].message
    assert outcomes[0].verdict is not Verdict.ERROR


def failure(cause: Cause) -> GangResult:
    report = report_to_json(Report(0, Verdict.ERROR, cause, "broken"))
    return GangResult(Ending.FINISHED, 0.5, (report,), 0, "exit code 1")


def test_a_network_that_cannot_be_prepared_is_tried_once(tmp_path: Path) -> None:
    server = FakeServer()
    server.preparing = failure(Cause.UNSUPPORTED_OPERATOR)
    _, outcomes = run(make_category(tmp_path / "digits", 4, networks=1), tmp_path / "r", server)

    assert {outcome.cause for outcome in outcomes} == {Cause.UNSUPPORTED_OPERATOR}
    assert {outcome.message for outcome in outcomes} == {"broken"}
    assert {outcome.run_time_s for outcome in outcomes} == {None}
    assert len(outcomes) == 8
    assert len(server.prepared) == 1
    assert server.verified == []


def test_a_bad_property_does_not_condemn_its_network(tmp_path: Path) -> None:
    server = FakeServer()
    server.preparing = failure(Cause.SHAPE_MISMATCH)
    run(make_category(tmp_path / "digits", 3, networks=1), tmp_path / "r", server)

    assert len(server.prepared) == 6


def test_a_counterexample_of_a_killed_attempt_does_not_survive(tmp_path: Path) -> None:
    category = make_category(tmp_path / "digits", 1)
    stale: list[Path] = []

    def interrupted(payload: dict[str, Any], ranks: int) -> GangResult:
        stale.append(Path(payload["counterexample"]))
        stale[0].write_bytes(b"half")
        raise KeyboardInterrupt

    def undecided(payload: dict[str, Any], ranks: int) -> GangResult:
        report = report_to_json(Report(0, Verdict.UNKNOWN, Cause.INCOMPLETE))
        return GangResult(Ending.FINISHED, 1.0, (report,) * ranks)

    with pytest.raises(KeyboardInterrupt):
        run(category, tmp_path / "r", FakeServer(interrupted))
    assert stale[0].exists()
    run(category, tmp_path / "r", FakeServer(undecided))

    assert not stale[0].exists()


@pytest.mark.parametrize("repeat", [1, 3])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, repeat: int) -> None:
    category = make_category(tmp_path / "digits", 5)
    calls = iter(range(100))

    def interrupted_at_4(payload: dict[str, Any], ranks: int) -> GangResult:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return answer(payload, ranks)

    with pytest.raises(KeyboardInterrupt):
        run(category, tmp_path / "r", FakeServer(interrupted_at_4), repeat=repeat)
    (broken,) = (tmp_path / "r").iterdir()
    assert read_manifest(broken).status is Status.INTERRUPTED
    resumed, outcomes = run(category, tmp_path / "r", repeat=repeat)

    assert resumed == broken
    assert len(outcomes) == 10 * repeat - 4
    unbroken, _ = run(category, tmp_path / "unbroken", repeat=repeat)
    assert content(resumed) == content(unbroken)


@pytest.mark.parametrize("ending", [Ending.FINISHED, Ending.RANK_DIED])
def test_a_rank_that_fails_on_a_full_disk_says_nothing_of_its_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: Ending
) -> None:
    def broken(payload: dict[str, Any], ranks: int) -> GangResult:
        return GangResult(ending, 0.1, (None,) * ranks, 0, "exit code 1")

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(DiskFullError, match="resume"):
        run(make_category(tmp_path / "digits", 1), tmp_path / "r", FakeServer(broken))

    (run_folder,) = (tmp_path / "r").iterdir()
    assert len((run_folder / "outcomes.csv").read_text().splitlines()) == 1, "only the header"


@pytest.mark.parametrize("target", ["prepare", "verify"])
def test_a_disk_that_was_full_for_a_rank_ends_the_run_and_is_not_recorded(
    tmp_path: Path, target: str
) -> None:
    """Even if there is room again by the time the rank is gone."""
    category = make_category(tmp_path / "digits", 1)
    report = Report(0, Verdict.ERROR, Cause.DISK_FULL, "No space left on device: x.gz")
    full = GangResult(Ending.FINISHED, 0.1, (report_to_json(report),), 0, "exit code 1")
    server = FakeServer(lambda payload, ranks: full) if target == "verify" else FakeServer()
    if target == "prepare":
        server.preparing = full
    with pytest.raises(DiskFullError, match=r"x\.gz.*resume"):
        run(category, tmp_path / "r", server, strategies=("baseline",))
    resumed, outcomes = run(category, tmp_path / "r", strategies=("baseline",))

    assert [outcome.cause for outcome in outcomes] != [Cause.DISK_FULL]
    unbroken, _ = run(category, tmp_path / "unbroken", strategies=("baseline",))
    assert content(resumed) == content(unbroken)


def test_a_disk_that_is_full_for_a_gang_is_named(tmp_path: Path) -> None:
    def full(payload: dict[str, Any], ranks: int) -> GangResult:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFullError, match=r"vnncomp-runner run .*digits"):
        run(make_category(tmp_path / "digits", 1), tmp_path / "r", FakeServer(full))


def killed(body: Callable[[], object], after_s: float | None = None) -> bool:
    """Runs `body` in another process, maybe killed after a time; whether it was killed."""
    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join(after_s)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def finished(results: Path) -> bool:
    return any(
        read_manifest(file.parent).status is Status.FINISHED
        for file in results.glob("[!.]*/run.json")
    )


def test_a_run_killed_at_random_moments_loses_and_repeats_nothing(tmp_path: Path) -> None:
    category = make_category(tmp_path / "digits", 30)
    start = time.monotonic()
    expected = content(run(category, tmp_path / "unbroken")[0])
    duration_s = time.monotonic() - start
    chance = random.Random(2606)

    kills = runs = 0
    while kills < 20:
        results = tmp_path / f"run{runs}"
        while killed(partial(run, category, results), chance.uniform(0, duration_s / 2)):
            kills += 1
            if finished(results):  # killed on its way out: the same command would start anew
                break
        (run_folder,) = (path for path in results.iterdir() if not path.name.startswith("."))
        assert content(run_folder) == expected
        runs += 1


@pytest.mark.parametrize("written", [0.0, 0.5, 1.0], ids=["before", "within", "after"])
@pytest.mark.parametrize("operation", range(6))
def test_a_kill_at_any_write_of_a_row_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: int, written: float
) -> None:
    """Each task writes three times: the official row, the rank rows, the outcome."""
    category = make_category(tmp_path / "digits", 3)
    real_append, writes = append.append_line, iter(range(100))

    def append_and_die(path: Path, text: str) -> None:
        if next(writes) == operation:
            with path.open("a") as file:
                file.write(text[: int(len(text) * written)])
            os.kill(os.getpid(), signal.SIGKILL)
        real_append(path, text)

    def dying_run() -> None:
        monkeypatch.setattr(folder, "append_line", append_and_die)
        run(category, tmp_path / "r")

    assert killed(dying_run)
    resumed, _ = run(category, tmp_path / "r")

    assert content(resumed) == content(run(category, tmp_path / "unbroken")[0])
