"""A run cut into shards, so that each is expected to take as long as the others."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from runner.contract.errors import UsageError
from runner.problem.instances import MalformedRow, Row, read_rows
from runner.record.manifest import Command
from runner.record.shards import ShardQuestion
from runner.run.plan import Task, plan_again, question_of

# Of a row without a timeout that can be read, which is an error at once.
_NO_TIME_S = 0.1


def asked_of(task: Task) -> ShardQuestion:
    row = task.row
    return ShardQuestion(*question_of(row), str(row.source), row.line, task.first_name)


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


def tasks_of(command: Command, asked: Sequence[ShardQuestion]) -> list[Task]:
    """Those of a shard, as `plan` has them; no other row is read, and no other file looked for.

    Raises UsageError where a row is not in its instances.csv any more.
    """
    lines: dict[str, set[int]] = {}
    for question in asked:
        lines.setdefault(question.source, set()).add(question.line)
    found = {
        (source, row.line): row
        for source, wanted in lines.items()
        for row in read_rows(Path(source), wanted, command.timeout_s)
    }
    named = [
        (_same(question, found.get((question.source, question.line))), question.name)
        for question in asked
    ]
    return plan_again(command, named)


def _same(asked: ShardQuestion, row: Row | None) -> Row:
    if isinstance(row, MalformedRow):  # that names nothing was named by its place
        row = replace(row, network_name=asked.network)
    if row is None or question_of(row) != asked[:4]:
        raise UsageError(
            f"line {asked.line} of {asked.source} is not {asked.network}, {asked.property} with "
            "its files any more: they were changed since the run began, or are not seen here"
        )
    return row
