"""A run is cut so that its shards are expected to take as long as each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_server import make_category

from runner.record.manifest import Command
from runner.run.cut import asked_of, cut, tasks_of
from runner.run.plan import Task, plan


def tasks(folder: Path, timeouts: list[float], repeat: int = 1) -> list[Task]:
    category = make_category(folder / "digits", len(timeouts))
    rows = (category / "instances.csv").read_text().splitlines()
    names = [row.rpartition(",")[0] for row in rows]
    lines = [f"{name},{timeout}\n" for name, timeout in zip(names, timeouts, strict=True)]
    (category / "instances.csv").write_text("".join(lines))
    command = Command((str(category),), ("baseline", "fsdp"), 2)
    return plan(replace(command, repeat=repeat))


def test_shards_cost_alike_and_every_instance_is_in_one(tmp_path: Path) -> None:
    parts = cut(tasks(tmp_path, [10, 10, 10, 30, 60, 60]), 3)
    assert [sum(asked.timeout_s or 0 for asked in part) for part in parts] == [60, 60, 60]
    names = [asked.property for part in parts for asked in part]
    assert sorted(names) == [f"prop{number}.vnnlib" for number in range(6)]


def test_a_strategy_runs_where_its_baseline_does_in_every_repeat(tmp_path: Path) -> None:
    planned = tasks(tmp_path, [10] * 5, repeat=2)
    parts = [tasks_of(planned, set(part)) for part in cut(planned, 2)]
    assert sorted(map(len, parts)) == [8, 12]
    for part in parts:
        asked = {asked_of(task) for task in part}
        assert len(part) == len(asked) * 4


@pytest.mark.parametrize("shards", [1, 3, 50])
def test_no_shard_is_empty(shards: int, tmp_path: Path) -> None:
    parts = cut(tasks(tmp_path, [10, 20, 30]), shards)
    assert len(parts) == min(shards, 3)
    assert all(parts)


def test_instances_keep_their_order(tmp_path: Path) -> None:
    for part in cut(tasks(tmp_path, [1, 60, 2, 50, 3, 40]), 2):
        assert part == sorted(part, key=lambda asked: asked.property)
