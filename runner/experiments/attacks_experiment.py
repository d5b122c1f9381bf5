"""What attacks find: several on the same instances, with equal time or equal passes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from runner.contract.errors import UsageError
from runner.contract.question import Question
from runner.contract.wire import question_to_json
from runner.execute.executor import Executor, Gang
from runner.problem.instances import Instance
from runner.record.append import append_line
from runner.record.folder import read_rows, settle
from runner.record.lock import exclusive
from runner.record.manifest import Command
from runner.record.schema import columns, format_row, header
from runner.run.judge import preparation_failure
from runner.run.plan import Task, plan
from runner.run.prepare import Preparer

TARGET = "runner.engine.programs.attacks:attacks_target"
PRELOAD = ("runner.engine.programs.attacks",)
ATTACKS = ("pgd", "cw", "odi", "interval")
REFERENCE = "pgd"
ROWS = "rows.csv"
# Of a gang: an attack is asked for its budget between steps, which a hostile network makes long.
_LEAST_S, _ROOM = 60.0, 20.0


@dataclass(frozen=True)
class AttackBudget:
    """What each attack may spend on an instance: processor seconds, or passes of points through the
    network (a row of a bound is one as well). One of both. Raises UsageError.
    """

    cpu_s: float | None = None
    passes: int | None = None

    def __post_init__(self) -> None:
        if (self.cpu_s is None) == (self.passes is None):
            raise UsageError("an attack's budget is --seconds or --passes: name one of both")

    @property
    def words(self) -> str:
        return f"{self.cpu_s:g} s" if self.cpu_s is not None else f"{self.passes} passes"


@dataclass(frozen=True)
class AttackRow:
    """One attack on one instance. `found_s`: processor seconds until a counterexample that ONNX
    Runtime confirms, None without. `nearest`: what a point missed a disjunct by, the least;
    `trouble`: why there is no figure.
    """

    category: str
    network: str
    property: str
    attack: str
    budget: str
    found_s: float | None = None
    nearest: float | None = None
    cpu_s: float | None = None
    passes: int | None = None
    trouble: str = ""

    def key(self) -> tuple[str, ...]:
        return self.category, self.network, self.property, self.attack, self.budget


_DTYPES = {column.name: column.dtype() for column in columns(AttackRow)}
Told = Callable[[AttackRow], None]


def tasks_of(
    categories: Sequence[Path],
    filter_glob: str | None,
    limit: int | None,
    seed: int,
    timeout_s: float | None = None,
) -> list[Task]:
    """The instances that are attacked. Raises UsageError as `plan` does."""
    return plan(
        Command(
            categories=tuple(str(category.absolute()) for category in categories),
            strategies=("baseline",),
            ranks=1,
            timeout_s=timeout_s,
            filter=filter_glob,
            limit=limit,
            seed=seed,
        )
    )


def attack_all(
    tasks: Sequence[Task],
    attacks: Sequence[str],
    budget: AttackBudget,
    folder: Path,
    executor: Executor,
    told: Told,
    seed: int = 0,
) -> pd.DataFrame:
    """Attacks what `folder` has no row of; gives the rows of all. Raises UsageError."""
    unknown = [name for name in attacks if name not in ATTACKS]
    if unknown:
        raise UsageError(f"unknown attack {unknown[0]!r}; known: {', '.join(ATTACKS)}")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder), tempfile.TemporaryDirectory() as scratch:
        file = folder / ROWS
        rows = read_rows(file, AttackRow)
        settle(file, header(AttackRow) + "".join(map(format_row, rows)))
        done = {row.key() for row in rows}
        preparer = Preparer(executor, Path(scratch), None)
        for task in tasks:
            for attack in attacks:
                row = _row_of(task, attack, budget)
                if row.key() in done:
                    continue
                asked = _Asked(row, task, budget, seed)
                rows.append(_attacked(asked, preparer, executor, Path(scratch)))
                append_line(file, format_row(rows[-1]))
                told(rows[-1])
    return pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each network, budget and attack: instances, violations found, how many of them by
    `pgd` too, and their share of `pgd`'s (1 where both found as many); the median time to the first
    of those found, and the median of `nearest`.
    """
    parts = frame.groupby(["category", "network", "budget"], sort=False)
    return pd.DataFrame([row for key, part in parts for row in _of_network(tuple(key), part)])


def _of_network(key: Sequence[object], part: pd.DataFrame) -> Iterator[dict[str, Any]]:
    found = {
        attack: set(rows["property"][rows["found_s"].notna()])
        for attack, rows in part.groupby("attack", sort=False)
    }
    reference = found.get(REFERENCE, set())
    for attack, rows in part.groupby("attack", sort=False):
        yield {
            **dict(zip(("category", "network", "budget"), key, strict=True)),
            "attack": attack,
            "instances": len(rows),
            "found": len(found[attack]),
            "also_by_pgd": len(found[attack] & reference),
            "of_pgd": len(found[attack]) / len(reference) if reference else float("nan"),
            "median_found_s": rows["found_s"].median(),
            "median_nearest": rows["nearest"].median(),
            "mean_passes": rows["passes"].mean(),
            "trouble": int((rows["trouble"].fillna("") != "").sum()),
        }


def _row_of(task: Task, attack: str, budget: AttackBudget) -> AttackRow:
    key = task.key()
    return AttackRow(key.category, key.network, key.property, attack, budget.words)


@dataclass(frozen=True)
class _Asked:
    """`row`: what is known of it before."""

    row: AttackRow
    task: Task
    budget: AttackBudget
    seed: int


def _attacked(asked: _Asked, preparer: Preparer, executor: Executor, scratch: Path) -> AttackRow:
    row, task, budget = asked.row, asked.task, asked.budget
    if not isinstance(task.row, Instance):
        return replace(row, trouble=f"{task.row.cause}: {task.row.message}")
    done = preparer.prepare(task.row, scratch / "prepare")
    if done.failure:
        return replace(row, trouble=f"{done.failure.cause}: {done.failure.message}")
    limit = _LEAST_S + _ROOM * (budget.cpu_s or 0.0) + (task.row.timeout_s if budget.passes else 0)
    question = Question(
        network=str(task.row.network),
        prepared=str(done.prepared),
        fitted=str(done.fitted or ""),
        property=str(task.row.property),
        strategy=task.strategy,
        ranks=1,
        timeout_s=limit,
        seed=asked.seed,
        counterexample=str(scratch / "counterexample.gz"),
    )
    payload = {
        "question": question_to_json(question),
        "attack": row.attack,
        "cpu_s": budget.cpu_s,
        "passes": budget.passes,
    }
    result = executor.submit(Gang(TARGET, payload, 1, scratch / "gang", limit)).result()
    report = result.reports[0] or {}
    if "attacked" in report:
        return replace(row, **report["attacked"])
    failure = preparation_failure(result)
    why = f"{failure.cause}: {failure.message}" if failure else f"{result.ended}: no report"
    return replace(row, trouble=why)
