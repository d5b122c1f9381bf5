"""One run against another."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import MadeRun

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Verdict
from runner.record.read import Run
from runner.report.changes import TIME_NOISE, FailOn, changes, fail_on, failures, notes, summary

WORSE = FailOn(verdict=True, time=1.3, memory=1.2)


def made(results: Path, name: str, fill: Callable[[MadeRun], None]) -> Run:
    run = MadeRun(results, name)
    fill(run)
    return run.read()


def pair(
    results: Path, old: Callable[[MadeRun], None], new: Callable[[MadeRun], None]
) -> tuple[Run, Run]:
    return made(results, "old", old), made(results, "new", new)


def answer(verdict: Verdict) -> Callable[[MadeRun], None]:
    return lambda run: run.add("baseline", 1, verdict, 1.0, (100,))


def repeated(
    seconds: float, peak: int = 100, noise: float = 0.05, seed: int = 0
) -> Callable[[MadeRun], None]:
    """Ten instances, five times each, with times that scatter by about `noise`."""

    def fill(run: MadeRun) -> None:
        chance = random.Random(seed)
        for number in range(10):
            for repeat in range(1, 6):
                time = (number + 1) * seconds * chance.lognormvariate(0.0, noise)
                run.add("baseline", number, Verdict.UNSAT, time, (peak,), repeat=repeat)

    return fill


@pytest.mark.parametrize(
    ("before", "after", "change", "fails"),
    [
        (Verdict.UNSAT, Verdict.UNSAT, "", False),
        (Verdict.UNSAT, Verdict.TIMEOUT, "lost", True),
        (Verdict.UNKNOWN, Verdict.SAT, "won", False),
        (Verdict.SAT, Verdict.UNSAT, "contradicts", True),
        (Verdict.TIMEOUT, Verdict.ERROR, "changed", False),
    ],
)
def test_what_becomes_of_an_answer(
    tmp_path: Path, before: Verdict, after: Verdict, change: str, fails: bool
) -> None:
    table = changes(*pair(tmp_path, answer(before), answer(after)))

    assert list(table["change"]) == [change]
    assert bool(failures(table, WORSE)) is fails
    assert not failures(table, FailOn())


def test_repeats_that_scatter_alike_are_no_change(tmp_path: Path) -> None:
    table = changes(*pair(tmp_path, repeated(1.0, seed=1), repeated(1.0, seed=2)))

    assert not table["time_changed"].any()
    assert 1.02 <= table["time_noise"].iloc[0] < 1.3


def test_a_slowdown_beyond_the_noise_of_repeats_is_found_and_fails(tmp_path: Path) -> None:
    table = changes(*pair(tmp_path, repeated(1.0, seed=1), repeated(1.4, seed=2)))
    (row,) = summary(table).to_dict("records")

    assert row["slower"] == 10
    assert row["time_ratio"] == pytest.approx(1.4, rel=0.05)
    (failure,) = failures(table, FailOn(time=1.2))
    assert failure.startswith("time: 10 instances beyond 1.2×")
    assert not failures(table, FailOn(time=1.7))


def test_the_same_slowdown_in_noisy_repeats_is_none(tmp_path: Path) -> None:
    noisy = pair(tmp_path, repeated(1.0, noise=0.5, seed=1), repeated(1.2, noise=0.5, seed=2))

    assert not changes(*noisy)["time_changed"].any()


def test_without_repeats_a_stated_threshold_is_used(tmp_path: Path) -> None:
    def times(*seconds: float) -> Callable[[MadeRun], None]:
        def fill(run: MadeRun) -> None:
            for number, value in enumerate(seconds):
                run.add("baseline", number, Verdict.UNSAT, value, (100,))

        return fill

    old, new = pair(tmp_path, times(1.0, 1.0, 0.01), times(1.4, 1.6, 0.05))
    table = changes(old, new)

    assert list(table["time_changed"]) == [False, True, False]
    assert any(f"{TIME_NOISE}×" in note for note in notes(old, new, table))


def test_memory_hardly_scatters(tmp_path: Path) -> None:
    table = changes(*pair(tmp_path, repeated(1.0, 1000), repeated(1.0, 1300)))

    assert table["memory_changed"].all()
    (failure,) = failures(table, WORSE)
    assert failure.startswith("memory: 10 instances beyond 1.2×, at most 1.30×")


def test_what_was_cut_short_has_no_time_to_compare(tmp_path: Path) -> None:
    table = changes(*pair(tmp_path, answer(Verdict.TIMEOUT), answer(Verdict.UNSAT)))

    assert table["time_ratio"].isna().all()
    assert not table["time_changed"].any()


def test_only_what_both_asked_is_compared_and_the_rest_is_told(tmp_path: Path) -> None:
    def more(run: MadeRun) -> None:
        answer(Verdict.UNSAT)(run)
        run.add("fsdp", 1, Verdict.UNSAT, 1.0, (50, 50))

    old, new = pair(tmp_path, answer(Verdict.UNSAT), more)
    table = changes(old, new)

    assert len(table) == 1
    assert "1 of 2 answers are in both runs; the others do not count." in notes(old, new, table)


def test_runs_on_two_machines_are_told(tmp_path: Path) -> None:
    old = MadeRun(tmp_path, "old", host={"name": "a"})
    new = MadeRun(tmp_path, "new", host={"name": "b"})
    for run in (old, new):
        answer(Verdict.UNSAT)(run)
    before, after = old.read(), new.read()

    assert "The runs differ in host: a, b." in notes(before, after, changes(before, after))


def test_runs_that_share_nothing_are_refused(tmp_path: Path) -> None:
    def other(run: MadeRun) -> None:
        run.add("fsdp", 1, Verdict.UNSAT, 1.0, (50, 50))

    with pytest.raises(UsageError, match="share no instance"):
        changes(*pair(tmp_path, answer(Verdict.UNSAT), other))


def test_the_limits_are_read_from_the_command_line() -> None:
    assert fail_on("verdict,time:1.3, memory:1.2") == WORSE
    assert fail_on("") == FailOn()


@pytest.mark.parametrize("text", ["speed:1.2", "time", "time:fast", "time:0.9", "verdict:2"])
def test_limits_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--fail-on {text}"):
        fail_on(text)
