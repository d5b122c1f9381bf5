"""The run folder: appended to whole, resumed, locked, never half written."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rows import COMMAND, file_size_limit, outcome, rank_rows, record

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Meter
from runner.contract.workload import Workload
from runner.record.append import DiskFullError
from runner.record.folder import RunInUseError, file_name, open_run
from runner.record.manifest import Command, Status, read_manifest
from runner.record.schema import SCHEMA_VERSION, format_row

TABLES = ("outcomes.csv", "ranks.csv", "fsdp/digits/results.csv")


class Killed(BaseException):
    """Ends a run as a signal would: nothing is told to run.json."""


def killed_after(results: Path, numbers: range, command: Command = COMMAND) -> Path:
    """A run that recorded `numbers` and was then killed."""
    with contextlib.suppress(Killed), open_run(results, command, 9) as folder:
        record(folder, numbers)
        raise Killed
    return folder.path


def resumed(results: Path, numbers: range) -> Path:
    with open_run(results, COMMAND, 9) as folder:
        record(folder, numbers)
    return folder.path


def tables(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in TABLES}


def test_the_tables_hold_what_was_recorded(tmp_path: Path) -> None:
    run = resumed(tmp_path, range(1, 3))

    assert (run / "outcomes.csv").read_text().splitlines()[1:] == [
        format_row(outcome(number)).strip() for number in (1, 2)
    ]
    assert len((run / "ranks.csv").read_text().splitlines()) == 1 + 2 * 2
    assert (run / "fsdp/digits/results.csv").read_text() == (
        "digits,onnx/net.onnx,vnnlib/prop_1.vnnlib,0.1,unsat,0.3333333333333333\n"
        "digits,onnx/net.onnx,vnnlib/prop_2.vnnlib,0.1,unsat,0.6666666666666666\n"
    )


def test_run_json_says_what_ran_where(tmp_path: Path) -> None:
    run = resumed(tmp_path, range(1))
    content = json.loads((run / "run.json").read_text())

    assert content["schema"] == SCHEMA_VERSION
    assert content["status"] == "finished"
    assert content["started"] < content["finished"]
    assert content["command"]["strategies"] == ["baseline", "fsdp"]
    assert {"python", "torch", "auto_LiRPA", "onnx", "onnxruntime", "numpy"} <= set(
        content["versions"]
    )
    assert content["host"]["cores"] >= 1
    assert content["host"]["memory_bytes"] > 2**20
    assert content["gpus"] == [] or content["gpus"][0]["memory_bytes"] > 0
    assert content["meters"] == [Meter.DISPATCH]


def test_run_json_says_what_measured_before_a_run_was_killed_too(tmp_path: Path) -> None:
    killed_after(tmp_path, range(1))
    with open_run(tmp_path, COMMAND, 9) as folder:
        for number, meter in ((1, Meter.ALLOCATOR), (2, Meter.NONE)):
            folder.record(replace(outcome(number), meter=meter), [])

    assert read_manifest(folder.path).meters == (Meter.ALLOCATOR, Meter.DISPATCH)


def test_a_run_json_of_an_older_version_tells_no_meter(tmp_path: Path) -> None:
    run = resumed(tmp_path, range(1))
    content = json.loads((run / "run.json").read_text())
    del content["meters"]
    (run / "run.json").write_text(json.dumps(content))

    assert read_manifest(run).meters == ()


def test_the_same_command_resumes_a_killed_run(tmp_path: Path) -> None:
    unbroken = resumed(tmp_path / "unbroken", range(5))
    killed = killed_after(tmp_path / "broken", range(2))

    with open_run(tmp_path / "broken", COMMAND, 9) as folder:
        assert folder.path == killed
        assert set(folder.done) == {outcome(0).key(), outcome(1).key()}
        record(folder, range(2, 5))

    assert tables(killed) == tables(unbroken)
    assert read_manifest(killed).status is Status.FINISHED
    assert len(read_manifest(killed).resumed) == 1


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    assert resumed(tmp_path, range(1)) != resumed(tmp_path, range(1))


@pytest.mark.parametrize(
    "change",
    [
        {"categories": ("/benchmarks/other",)},
        {"strategies": ("baseline",)},
        {"ranks": 3},
        {"timeout_s": 1.0},
        {"filter": "a*"},
        {"limit": 1},
        {"seed": 1},
        {"memory_limit_gib": 1.0},
        {"work_memory_mib": 64.0},
        {"repeat": 2},
        {"workload": Workload(10, 512)},
    ],
    ids=str,
)
def test_another_command_starts_a_run_of_its_own(tmp_path: Path, change: dict[str, Any]) -> None:
    killed = killed_after(tmp_path, range(1))

    with open_run(tmp_path, replace(COMMAND, **change), 9) as folder:
        assert folder.path != killed
        assert not folder.done


def test_the_newest_of_several_killed_runs_is_resumed(tmp_path: Path) -> None:
    older = killed_after(tmp_path, range(1))
    manifest = read_manifest(older)
    replace(manifest, status=Status.FINISHED).write(older)
    newer = killed_after(tmp_path, range(2))
    manifest.write(older)

    assert resumed(tmp_path, range(2, 3)) == newer != older


def test_an_interrupted_run_says_so_and_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, COMMAND, 9) as folder:
        raise KeyboardInterrupt

    assert read_manifest(folder.path).status is Status.INTERRUPTED
    assert resumed(tmp_path, range(1)) == folder.path


@pytest.mark.parametrize("kept", [0, 1, 0.5, -1], ids=["nothing", "a byte", "half", "all but \\n"])
@pytest.mark.parametrize("table", TABLES)
def test_a_row_that_was_cut_off_is_removed_with_its_rows_elsewhere(
    tmp_path: Path, table: str, kept: float
) -> None:
    expected = tables(resumed(tmp_path / "unbroken", range(3)))
    run = killed_after(tmp_path / "cut", range(3))
    # The tables are written in this order: those after the one that was cut have no such row.
    order = ("fsdp/digits/results.csv", "ranks.csv", "outcomes.csv")
    for place, name in enumerate(order):
        content = (run / name).read_bytes()
        last = content.rstrip(b"\n").rfind(b"\n") + 1
        if name == "ranks.csv":  # two rows, one write
            last = content[: last - 1].rfind(b"\n") + 1
        row = content[last:]
        size = int(len(row) * kept) if isinstance(kept, float) else kept
        if name == table:
            (run / name).write_bytes(content[:last] + (row[:size] if size else b""))
        elif place > order.index(table):
            (run / name).write_bytes(content[:last])

    with open_run(tmp_path / "cut", COMMAND, 9) as folder:
        assert set(folder.done) == {outcome(0).key(), outcome(1).key()}
        record(folder, range(2, 3))

    assert tables(run) == expected


def test_a_run_killed_before_its_first_row_is_resumed(tmp_path: Path) -> None:
    run = killed_after(tmp_path, range(0))
    (run / "outcomes.csv").write_text("category,netw")
    (run / "ranks.csv").unlink()

    assert tables(resumed(tmp_path, range(1))) == tables(resumed(tmp_path / "new", range(1)))


def test_two_runs_cannot_have_one_folder(tmp_path: Path) -> None:
    with open_run(tmp_path, COMMAND, 9) as folder:
        record(folder, range(1))
        with pytest.raises(RunInUseError, match=folder.path.name), open_run(tmp_path, COMMAND, 9):
            pass
        record(folder, range(1, 2))

    assert tables(folder.path) == tables(resumed(tmp_path / "new", range(2)))


@pytest.mark.parametrize("size", [1250, 1500, 1777, 2000])
def test_a_full_disk_ends_the_run_and_leaves_whole_rows(tmp_path: Path, size: int) -> None:
    """The tables reach the limit one after the other, somewhere within a row."""
    expected = tables(resumed(tmp_path / "unbroken", range(40)))
    run = killed_after(tmp_path / "full", range(1))

    with pytest.raises(DiskFullError) as caught, file_size_limit(size):
        resumed(tmp_path / "full", range(1, 40))

    assert all(content.endswith(b"\n") for content in tables(run).values())
    assert str(run) in str(caught.value)
    assert "vnncomp-runner run /benchmarks/digits" in str(caught.value)
    with open_run(tmp_path / "full", COMMAND, 9) as folder:
        assert folder.path == run
        assert 1 < len(folder.done) < 40
        record(folder, range(len(folder.done), 40))
    assert tables(run) == expected


def test_a_disk_without_room_for_a_new_run_is_named(tmp_path: Path) -> None:
    with (
        file_size_limit(10),
        pytest.raises(DiskFullError, match=str(tmp_path)),
        open_run(tmp_path, COMMAND, 9),
    ):
        pass


def test_a_damaged_row_in_the_middle_is_named_by_file_and_line(tmp_path: Path) -> None:
    run = killed_after(tmp_path, range(3))
    lines = (run / "outcomes.csv").read_text().splitlines(keepends=True)
    (run / "outcomes.csv").write_text("".join([*lines[:2], "digits,net\n", *lines[3:]]))

    with pytest.raises(UsageError, match=r"outcomes\.csv:3"), open_run(tmp_path, COMMAND, 9):
        pass


def test_a_named_run_belongs_to_its_command(tmp_path: Path) -> None:
    with open_run(tmp_path, COMMAND, 9, "nightly") as folder:
        record(folder, range(1))
    assert folder.path == tmp_path / "nightly"

    with open_run(tmp_path, COMMAND, 9, "nightly") as folder:
        assert set(folder.done) == {outcome(0).key()}
    other = replace(COMMAND, ranks=5)
    with pytest.raises(UsageError, match="--run"), open_run(tmp_path, other, 9, "nightly"):
        pass


@pytest.mark.parametrize("name", ["a/b", "..", "."])
def test_a_run_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name"), open_run(tmp_path, COMMAND, 9, name):
        pass


def test_a_folder_of_another_kind_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()

    with (
        pytest.raises(UsageError, match="not a run folder"),
        open_run(tmp_path, COMMAND, 9, "photos"),
    ):
        pass
    assert not list((tmp_path / "photos").iterdir())


def test_a_run_of_another_schema_version_is_left_alone(tmp_path: Path) -> None:
    run = killed_after(tmp_path, range(1))
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | {"schema": 99}))

    assert resumed(tmp_path, range(1)) != run
    with pytest.raises(UsageError, match="99"):
        read_manifest(run)


def test_names_too_long_for_a_file_keep_apart() -> None:
    first, second = file_name("ä" * 300 + "1"), file_name("ä" * 300 + "2")

    assert first != second
    assert len(first.encode()) <= 200
    assert file_name("net_prop") == "net_prop"


def test_an_outcome_without_rank_rows_is_done_too(tmp_path: Path) -> None:
    with open_run(tmp_path, COMMAND, 9) as folder:
        folder.record(outcome(0), [])
        assert outcome(0).key() in folder.done

    assert rank_rows(outcome(0))  # it could have had some
    assert len((folder.path / "ranks.csv").read_text().splitlines()) == 1
