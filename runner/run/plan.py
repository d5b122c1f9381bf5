"""What a run has to do: one task per instance and strategy, in order."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.contract.errors import UsageError
from runner.contract.strategy import Engine, Strategy
from runner.contract.verifier import Tool, Verifier
from runner.contract.vocabulary import Device, Method
from runner.problem.instances import Instance, MalformedRow, Row, read_categories
from runner.problem.names import full_name, instance_name, matches, one_line
from runner.record.schema import Key
from runner.run.auto import UNSETTLED, strategy_or_auto, this_machine
from runner.verifiers.kinds import verifier_of

if TYPE_CHECKING:  # it looks at the machine, which one question alone need not wait for
    from runner.record.manifest import Command

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One row of instances.csv under one strategy. `first_name` is what the files of its first
    repeat are called.

    `repeat` counts from 1. `verifier`: who answers, where the strategy is none of ours.
    """

    row: Row
    strategy: Strategy
    ranks: int
    first_name: str
    repeat: int = 1
    verifier: Verifier | None = None

    @property
    def name(self) -> str:
        """What its files are called."""
        return self.first_name if self.repeat == 1 else f"{self.first_name}.repeat{self.repeat}"

    def key(self) -> Key:
        return Key(*question_of(self.row), self.strategy.name, self.repeat)


def plan(command: Command, left_out: Callable[[str], None] = _log.warning) -> list[Task]:
    """All tasks of a command; every strategy of an instance comes before the next instance.

    Everything is run once before anything is repeated. `left_out` is told of categories without
    anything to run.

    Raises UsageError for a strategy, verifier or category that does not exist, and when nothing
    is left.
    """
    answering = _answering(command)
    rows = [
        row
        for category in read_categories(command.categories, command.timeout_s, left_out)
        for row in choose(category, command.filter, command.limit)
    ]
    if not rows:
        raise UsageError(f"no instance matches --filter {command.filter!r}")
    return _tasks(command, _named(_distinct(rows)), answering)


def plan_again(command: Command, named: Sequence[tuple[Row, str]]) -> list[Task]:
    """Some rows of a plan alone, each with the name that its files were given there.

    Raises UsageError for a strategy or verifier that does not exist.
    """
    return _tasks(command, named, _answering(command))


_Answering = Sequence[tuple[Strategy, Verifier | None]]


def _tasks(command: Command, named: Sequence[tuple[Row, str]], answering: _Answering) -> list[Task]:
    return [
        Task(
            row, strategy, ranks_of(strategy, command.ranks, command.device), name, repeat, verifier
        )
        for repeat in range(1, command.repeat + 1)
        for row, name in named
        for strategy, verifier in answering
    ]


def _answering(command: Command) -> _Answering:
    """Who answers every row. Raises UsageError for options that make no sense with them."""
    _check_options(command)
    answering: _Answering = [
        *((strategy_or_auto(name), None) for name in command.strategies),
        *map(_foreign, command.verifiers),
    ]
    if not answering:
        raise UsageError("nobody would answer: name a strategy, or another verifier by --verifier")
    if command.workload is not None:
        _check_searched(command.method, (strategy for strategy, _ in answering))
    return answering


def ranks_of(strategy: Strategy, asked: int, device: Device) -> int:
    """`auto` has as many ranks as the machine is good for, whatever it chooses later."""
    return this_machine(device).ranks if strategy == UNSETTLED else strategy.ranks_of(asked)


def _foreign(tool: Tool) -> tuple[Strategy, Verifier]:
    """One process for us, whatever it starts. Raises UsageError where a part of it is missing."""
    verifier = verifier_of(tool)
    verifier.check()
    return Strategy(tool.name, engine=Engine.TOOL, parallel=False), verifier


def _check_options(command: Command) -> None:
    for option, count in (("--ranks", command.ranks), ("--repeat", command.repeat)):
        if count < 1:
            raise UsageError(f"{option} {count}: at least one is needed")
    for option, value in (
        ("--timeout", command.timeout_s),
        ("--memory-limit", command.memory_limit_gib),
        ("--work-memory", command.work_memory_mib),
    ):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{option} {value}: a positive number is needed")


def _check_searched(method: Method, strategies: Iterable[Strategy]) -> None:
    """Raises UsageError for what has no branch and bound whose work could be fixed."""
    if method is not Method.COMPLETE:
        raise UsageError(f"--fixed-workload needs --method {Method.COMPLETE}, not {method}")
    for strategy in strategies:
        if strategy.engine is not Engine.DRIVER:
            raise UsageError(
                f"--fixed-workload: strategy {strategy.name} has no branch and bound; leave it out"
            )


def choose(rows: Iterable[Row], pattern: str | None, limit: int | None) -> list[Row]:
    """The first `limit` rows that match `pattern`; one that repeats another is warned of.

    A pattern is a shell glob; it matches a row when it matches its network's or property's name,
    as written or without folder and suffixes, or `<network>_<property>` of the latter.
    """
    matching = (
        row
        for row in rows
        if pattern is None or matches(row.network_name, row.property_name, pattern)
    )
    return _distinct(matching)[:limit]


def question_of(row: Row) -> tuple[str, str, str, float | None]:
    """What tells it from others: category, network, property and timeout, each in one line."""
    timeout_s = row.timeout_s if isinstance(row, Instance) else None
    names = (row.category, row.network_name, row.property_name)
    category, network, property_name = map(one_line, names)
    return category, network, property_name, timeout_s


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Each question once; raises UsageError when one name means different files.

    A malformed row that names nothing, or what an earlier one names, is told by its place.
    """
    seen: dict[tuple[str, str, str, float | None], Row] = {}
    for row in rows:
        if isinstance(row, MalformedRow) and (not row.network_name or question_of(row) in seen):
            row = replace(row, network_name=f"{row.source.name}:{row.line}")
        first = seen.setdefault(question_of(row), row)
        if first is row:
            continue
        if _files(first) != _files(row):
            raise UsageError(
                f"{row.source}:{row.line} and {first.source}:{first.line} give different files "
                f"the same name in category {row.category}; run them one after the other"
            )
        _log.warning("%s:%d repeats %s and is run once", row.source, row.line, _said(first, row))
    return list(seen.values())


def _said(first: Row, row: Row) -> str:
    place = f"line {first.line}" if first.source == row.source else f"{first.source}:{first.line}"
    same = f" (network, property, {row.timeout_s:g} s)" if isinstance(row, Instance) else ""
    return place + same


def _files(row: Row) -> tuple[object, ...]:
    return (row.network, row.property) if isinstance(row, Instance) else (row.source, row.message)


def _named(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """Each row with a name that no other row of its category has."""
    alike: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for row in rows:
        alike.setdefault(_short(row), set()).add((row.network_name, row.property_name))
    taken: set[tuple[str, str]] = set()
    named = []
    for row in rows:
        named_by = instance_name if len(alike[_short(row)]) == 1 else full_name
        name = named_by(row.network_name, row.property_name)
        if (row.category, name) in taken:
            name = f"{name}_line{row.line}"
        taken.add((row.category, name))
        named.append((row, name))
    return named


def _short(row: Row) -> tuple[str, str]:
    return row.category, instance_name(row.network_name, row.property_name)
