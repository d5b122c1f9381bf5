"""A run cut into shards, so that each is expected to take as long as the others."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from runner.record.shards import ShardQuestion
from runner.run.plan import Task

# Of a row without a timeout that can be read, which is an error at once.
_NO_TIME_S = 0.1


def asked_of(task: Task) -> ShardQuestion:
    key = task.key()
    return ShardQuestion(key.category, key.network, key.property, key.timeout_s)


def cut(tasks: Iterable[Task], shards: int) -> list[list[ShardQuestion]]:
    """The instances of each shard, in the order of `tasks`; at most so many, none of them empty.

    An instance stays together under all strategies and repeats, so that one node runs it. It is
    expected to cost its timeout for each of them; the dearest are given away first, each to the
    shard that has the least to do.
    """
    costs: dict[ShardQuestion, float] = {}
    for task in tasks:
        asked = asked_of(task)
        costs[asked] = costs.get(asked, 0.0) + (asked.timeout_s or _NO_TIME_S)
    parts: list[list[ShardQuestion]] = [[] for _ in range(min(shards, len(costs)))]
    loads = [(0.0, number) for number in range(len(parts))]
    for asked in sorted(costs, key=lambda asked: -costs[asked]):
        load, number = heapq.heappop(loads)
        parts[number].append(asked)
        heapq.heappush(loads, (load + costs[asked], number))
    place = {asked: index for index, asked in enumerate(costs)}
    return [sorted(part, key=place.__getitem__) for part in parts]


def tasks_of(tasks: Sequence[Task], asked: set[ShardQuestion]) -> list[Task]:
    """Those of a shard, in their order."""
    return [task for task in tasks if asked_of(task) in asked]
