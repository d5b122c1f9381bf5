"""Which tasks a command has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_server import make_category

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Method
from runner.contract.workload import Workload, workload_of
from runner.problem.instances import read_category
from runner.problem.names import matches
from runner.record.manifest import Command
from runner.run.plan import choose, plan


def command(*categories: Path) -> Command:
    return Command(tuple(map(str, categories)), ("baseline", "fsdp"), 3)


def test_every_strategy_of_an_instance_comes_before_the_next_instance(tmp_path: Path) -> None:
    tasks = plan(command(make_category(tmp_path / "digits", 2)))

    assert [(task.name, task.strategy.name, task.ranks) for task in tasks] == [
        ("net0_prop0", "baseline", 1),
        ("net0_prop0", "fsdp", 3),
        ("net1_prop1", "baseline", 1),
        ("net1_prop1", "fsdp", 3),
    ]


def test_the_limit_counts_instances_of_each_category_that_match(tmp_path: Path) -> None:
    both = command(make_category(tmp_path / "a", 6), make_category(tmp_path / "b", 6))
    tasks = plan(replace(both, filter="net0*", limit=2, strategies=("null",)))

    assert [(task.key().category, task.key().property) for task in tasks] == [
        ("a", "prop0.vnnlib"), ("a", "prop3.vnnlib"), ("b", "prop0.vnnlib"), ("b", "prop3.vnnlib"),
    ]  # fmt: skip


def without_files(folder: Path) -> Path:
    """A category whose large networks are still to be downloaded."""
    folder.mkdir()
    (folder / "instances.csv").write_text("large.onnx,a.vnnlib,60\nlarge.onnx,b.vnnlib,60\n")
    return folder


def empty(folder: Path) -> Path:
    folder.mkdir()
    (folder / "instances.csv").touch()
    return folder


@pytest.mark.parametrize(
    ("lost", "words"),
    [(without_files, "none of the files it names exists; download"), (empty, "no rows")],
)
def test_a_category_with_nothing_to_run_is_told_once_and_costs_no_other_its_turn(
    tmp_path: Path, lost: Callable[[Path], Path], words: str
) -> None:
    good = [make_category(tmp_path / name, 1) for name in "ac"]
    told: list[str] = []
    tasks = plan(command(good[0], lost(tmp_path / "b"), good[1]), told.append)

    assert [task.key().category for task in tasks] == ["a", "a", "c", "c"]
    (message,) = told
    assert message.startswith(f"left out: {tmp_path}/b/instances.csv: ")
    assert words in message


def test_where_no_category_has_anything_to_run_each_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        plan(command(without_files(tmp_path / "a"), empty(tmp_path / "b")))

    first, second = str(refused.value).splitlines()
    assert "none of the files" in first
    assert "no rows" in second


def test_a_category_that_does_not_exist_is_refused_whatever_else_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such category"):
        plan(command(make_category(tmp_path / "digits", 1), tmp_path / "digist"))


@pytest.mark.parametrize(
    "pattern",
    ["onnx/net.onnx", "net", "n?t", "prop_1", "net_prop_1", "*prop*", "*.vnnlib.gz", "vnnlib/*"],
)
def test_a_glob_matches_names_with_and_without_folders_and_suffixes(pattern: str) -> None:
    assert matches("onnx/net.onnx", "vnnlib/prop_1.vnnlib.gz", pattern)
    assert not matches("onnx/other.onnx", "spec/q.vnnlib", pattern)


def test_a_repeated_row_runs_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_category(tmp_path / "digits", 2, extra="net0.onnx,prop0.vnnlib,60\n")
    with caplog.at_level(logging.WARNING):
        tasks = plan(command(folder))

    assert len(tasks) == 2 * 2
    assert "instances.csv:3 repeats line 1 (network, property, 60 s) and is run once" in caplog.text


def test_rows_that_one_timeout_makes_equal_run_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_category(tmp_path / "digits", 1, extra="net0.onnx,prop0.vnnlib,5\n")
    with caplog.at_level(logging.WARNING):
        tasks = plan(replace(command(folder), timeout_s=7.0, strategies=("baseline",)))

    assert [task.name for task in tasks] == ["net0_prop0"]
    assert "instances.csv:2 repeats line 1 (network, property, 7 s) and is run once" in caplog.text


def test_a_choice_of_rows_holds_each_question_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_category(tmp_path / "digits", 1, extra="net0.onnx,prop0.vnnlib,60\n" * 2)
    with caplog.at_level(logging.WARNING):
        chosen = choose(read_category(folder), "net0*", 2)

    assert [row.line for row in chosen] == [1]
    assert caplog.text.count("repeats line 1") == 2


def test_a_category_that_is_named_twice_runs_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_category(tmp_path / "digits", 2)
    assert len(plan(command(folder, folder))) == 2 * 2
    assert caplog.text == ""


def test_names_that_are_alike_but_for_folders_have_them(tmp_path: Path) -> None:
    folder = make_category(tmp_path / "digits", 1)
    for inside in ("a", "b"):
        (folder / inside).mkdir()
        (folder / inside / "net0.onnx").touch()
    rows = "a/net0.onnx,prop0.vnnlib,5\n./b/net0.onnx,prop0.vnnlib,5\nb/net0.onnx,prop0.vnnlib,6\n"
    (folder / "instances.csv").write_text(rows)
    tasks = plan(replace(command(folder), strategies=("baseline",)))

    assert [task.name for task in tasks] == [
        "a_net0_prop0", "b_net0_prop0", "b_net0_prop0_line3",
    ]  # fmt: skip


def test_another_timeout_is_another_instance_with_files_of_its_own(tmp_path: Path) -> None:
    folder = make_category(tmp_path / "digits", 1, extra="net0.onnx,prop0.vnnlib,5\n")
    tasks = plan(replace(command(folder), strategies=("baseline",)))

    assert [task.key().timeout_s for task in tasks] == [60.0, 5.0]
    assert [task.name for task in tasks] == ["net0_prop0", "net0_prop0_line2"]


def test_a_row_that_names_nothing_is_told_by_its_place(tmp_path: Path) -> None:
    folder = make_category(tmp_path / "digits", 1, extra="what\nis this\n")
    tasks = plan(replace(command(folder), strategies=("baseline",)))

    assert [task.key().network for task in tasks[1:]] == ["instances.csv:2", "instances.csv:3"]
    assert len({task.name for task in tasks}) == 3


def test_malformed_rows_that_name_the_same_are_told_by_their_place(tmp_path: Path) -> None:
    bad = "net0.onnx,prop0.vnnlib,soon\nnet0.onnx,prop0.vnnlib,-1\nno.onnx,prop0.vnnlib,1\n"
    folder = make_category(tmp_path / "digits", 1, extra=bad + "no.onnx,prop0.vnnlib,1\n")
    tasks = plan(replace(command(folder), strategies=("baseline",)))

    assert [task.key().network for task in tasks] == [
        "net0.onnx", "net0.onnx", "instances.csv:3", "no.onnx", "instances.csv:5",
    ]  # fmt: skip
    assert len({task.key() for task in tasks}) == len({task.name for task in tasks}) == 5


def test_two_categories_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = [make_category(tmp_path / place / "digits", 1) for place in "ab"]

    with pytest.raises(UsageError, match="digits"):
        plan(command(*folders))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strategies": ("baseline", "fdsp")}, "fdsp.*baseline, fsdp"),
        ({"filter": "nothing*"}, "nothing"),
        ({"ranks": 0}, "--ranks"),
        ({"timeout_s": -1.0}, "--timeout"),
        ({"timeout_s": float("nan")}, "--timeout"),
        ({"memory_limit_gib": 0.0}, "--memory-limit"),
        ({"work_memory_mib": -1.0}, "--work-memory"),
        ({"categories": ("/no/such/category",)}, "/no/such/category"),
        ({"workload": Workload(10, 512), "strategies": ("baseline", "lirpa")}, "lirpa"),
        ({"workload": Workload(10, 512), "method": Method.ALPHA_CROWN}, "--method complete"),
    ],
    ids=str,
)
def test_a_command_that_cannot_run_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    whole = command(make_category(tmp_path / "digits", 1))

    with pytest.raises(UsageError, match=words):
        plan(replace(whole, **change))


@pytest.mark.parametrize(
    ("rounds", "batch", "words"),
    [
        (0, 512, "--fixed-workload 0"),
        (10, 0, "--batch 0"),
        (10, 511, "even"),
        (10, None, "add --batch"),
        (None, 512, "add --fixed-workload"),
    ],
)
def test_a_workload_that_cannot_be_done_is_refused(
    rounds: int | None, batch: int | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        workload_of(rounds, batch)


def test_nothing_is_fixed_unless_asked_for() -> None:
    assert workload_of(None, None) is None
    assert workload_of(10, 512) == Workload(10, 512)
