"""A run is cut so that its shards are expected to take as long as each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_server import make_category

from runner.record.manifest import Command
from runner.record.shards import Shard
from runner.run.cut import asked_of, cut, tasks_of
from runner.run.plan import Task, plan


def category(folder: Path, timeouts: list[float]) -> Command:
    made = make_category(folder / "digits", len(timeouts))
    rows = (made / "instances.csv").read_text().splitlines()
    names = [row.rpartition(",")[0] for row in rows]
    lines = [f"{name},{timeout}\n" for name, timeout in zip(names, timeouts, strict=True)]
    (made / "instances.csv").write_text("".join(lines))
    return Command((str(made),), ("baseline", "fsdp"), 2)


def tasks(folder: Path, timeouts: list[float]) -> list[Task]:
    return plan(category(folder, timeouts))


def test_shards_cost_alike_and_every_instance_is_in_one(tmp_path: Path) -> None:
    parts = cut(tasks(tmp_path, [10, 10, 10, 30, 60, 60]), 3)
    assert [sum(asked.timeout_s or 0 for asked in part) for part in parts] == [60, 60, 60]
    names = [asked.property for part in parts for asked in part]
    assert sorted(names) == [f"prop{number}.vnnlib" for number in range(6)]


def test_a_strategy_runs_where_its_baseline_does_in_every_repeat(tmp_path: Path) -> None:
    command = replace(category(tmp_path, [10] * 5), repeat=2)
    parts = [tasks_of(command, part) for part in cut(plan(command), 2)]
    assert sorted(map(len, parts)) == [8, 12]
    for part in parts:
        asked = {asked_of(task) for task in part}
        assert len(part) == len(asked) * 4


def test_shards_have_the_tasks_of_the_plan_and_look_at_no_other_row(tmp_path: Path) -> None:
    """With names that only the whole plan can tell, and rows that name nothing."""
    command = replace(category(tmp_path, [10] * 5), repeat=2)
    source = tmp_path / "digits" / "instances.csv"
    (tmp_path / "digits" / "net1").mkdir()
    for name in ("net1.onnx", "prop1.vnnlib"):
        (tmp_path / "digits" / "net1" / name).write_bytes(b"")
    more = ("net1/net1.onnx,net1/prop1.vnnlib,10", "net1.onnx,net1/prop1.vnnlib,10", "nothing")
    source.write_text(source.read_text() + "\n".join((*more, "lost.onnx,prop1.vnnlib,10", "")))
    whole = plan(command)
    parts = cut(whole, 3)
    assert len({task.name for task in whole}) == len(whole) // 2
    for number, part in enumerate(parts):
        shard = Shard(tmp_path, number)
        shard.write(part)
        others = [asked.property for other in parts if other is not part for asked in other]
        hidden = [tmp_path / "digits" / name for name in others if name.startswith("prop")]
        kept = {file: file.read_bytes() for file in set(hidden) if file.name not in str(part)}
        for file in kept:
            file.unlink()
        assert tasks_of(command, shard.asked()) == [t for t in whole if asked_of(t) in part]
        for file, content in kept.items():
            file.write_bytes(content)


@pytest.mark.parametrize("shards", [1, 3, 50])
def test_no_shard_is_empty(shards: int, tmp_path: Path) -> None:
    parts = cut(tasks(tmp_path, [10, 20, 30]), shards)
    assert len(parts) == min(shards, 3)
    assert all(parts)


def test_instances_keep_their_order(tmp_path: Path) -> None:
    for part in cut(tasks(tmp_path, [1, 60, 2, 50, 3, 40]), 2):
        assert part == sorted(part, key=lambda asked: asked.property)
