"""What each part of the engine buys: the same instances by all of it, and without some of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from runner.contract.errors import UsageError
from runner.contract.question import Question
from runner.contract.vocabulary import Cause, EnginePart, Verdict
from runner.contract.wire import question_to_json
from runner.execute.executor import Executor, Gang
from runner.problem.instances import Instance
from runner.record.append import append_line
from runner.record.folder import read_rows, settle
from runner.record.lock import exclusive
from runner.record.schema import Outcome, columns, format_row, header
from runner.run.judge import Answer, judge, refused
from runner.run.plan import Task
from runner.run.prepare import Preparation, Preparer
from runner.run.programs import VERIFY

ROWS = "rows.csv"
# What is left out of the whole engine, and where all is that can be.
NOTHING, EVERYTHING = "nothing", "everything"
ALL = "all"  # the category of sums over several
_DECIDED = (Verdict.SAT, Verdict.UNSAT)
Without = frozenset[EnginePart]
_WHOLE: Without = frozenset()


@dataclass(frozen=True)
class AblationRow:
    """One instance, answered without some parts: `without` names them, as `parts_named` takes."""

    category: str
    network: str
    property: str
    timeout_s: float | None
    seed: int
    without: str
    verdict: Verdict = Verdict.UNKNOWN
    cause: Cause = Cause.NONE
    method: str = ""
    lower_bound: float | None = None
    run_time_s: float | None = None
    cpu_s: float | None = None
    domains: int | None = None
    message: str = ""

    def key(self) -> tuple[object, ...]:
        """What is asked."""
        asked = self.category, self.network, self.property, self.timeout_s
        return *asked, self.seed, self.without

    def answered(self, outcome: Outcome) -> AblationRow:
        return replace(
            self,
            verdict=outcome.verdict,
            cause=outcome.cause,
            method=outcome.method,
            lower_bound=outcome.lower_bound,
            run_time_s=outcome.run_time_s,
            cpu_s=outcome.cpu_s,
            domains=outcome.domains,
            message=outcome.message,
        )


_DTYPES = {column.name: column.dtype() for column in columns(AblationRow)}
Told = Callable[[AblationRow], None]


def parts_named(names: Sequence[str]) -> tuple[Without, ...]:
    """What is left out each time: a part, several joined by "+", or EVERYTHING; where nothing is
    named, each part by itself and then everything. Raises UsageError for an unknown part.
    """
    return tuple(map(_parts, names or (*EnginePart, EVERYTHING)))


def _parts(name: str) -> Without:
    if name == EVERYTHING:
        return frozenset(EnginePart)
    known = {str(part): part for part in EnginePart}
    unknown = [word for word in name.split("+") if word not in known]
    if unknown:
        names = ", ".join((*known, EVERYTHING))
        raise UsageError(f"unknown part {unknown[0]!r}; known: {names}")
    return frozenset(known[word] for word in name.split("+"))


def _name(without: Without) -> str:
    if not without:
        return NOTHING
    return EVERYTHING if without == set(EnginePart) else "+".join(sorted(without))


def ablate(
    tasks: Sequence[Task],
    parts: Sequence[Without],
    folder: Path,
    executor: Executor,
    told: Told,
    seed: int = 0,
) -> pd.DataFrame:
    """Answers what `folder` has no row of; gives the rows of all. Each instance by the whole engine
    and without each of `parts` in turn, so that what else the machine does falls on all of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder), tempfile.TemporaryDirectory() as scratch:
        file = folder / ROWS
        rows = read_rows(file, AblationRow)
        settle(file, header(AblationRow) + "".join(map(format_row, rows)))
        done = {row.key() for row in rows}
        asking = _Asking(executor, Path(scratch))
        for task in tasks:
            for without in dict.fromkeys((_WHOLE, *parts)):
                row = _row_of(task, seed, without)
                if row.key() not in done:
                    rows.append(row.answered(asking.outcome(task, seed, without)))
                    append_line(file, format_row(rows[-1]))
                    told(rows[-1])
    return pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each category and what is left out, and for all categories together: instances,
    decided; `lost`, `won`: decided by the whole engine alone, and by the rest of it alone; those
    that contradict the whole engine. Of what both decided: how many, how many of them otherwise
    (`changed`), the median and the total processor time, and its share of the whole engine's.
    """
    frame = frame.assign(decided=frame["verdict"].isin(_DECIDED))
    parts = list(frame.groupby("category", sort=False))
    if len(parts) > 1:
        parts.append((ALL, frame))
    return pd.DataFrame([row for name, part in parts for row in _of_category(str(name), part)])


def _of_category(category: str, part: pd.DataFrame) -> Iterator[dict[str, Any]]:
    asked = ["category", "network", "property", "timeout_s", "seed"]
    whole = part[part["without"] == NOTHING]
    for without, rows in sorted(part.groupby("without", sort=False), key=_place):
        pairs = rows.merge(whole, on=asked, suffixes=("", "_whole"))
        mine, of_whole = pairs["decided"], pairs["decided_whole"]
        both = pairs[mine & of_whole]
        total, total_whole = (both[name].sum(min_count=1) for name in ("cpu_s", "cpu_s_whole"))
        yield {
            "category": category,
            "without": without,
            "instances": len(pairs),
            "decided": int(mine.sum()),
            "lost": int((of_whole & ~mine).sum()),
            "won": int((mine & ~of_whole).sum()),
            "contradict": int((both["verdict"] != both["verdict_whole"]).sum()),
            "both": len(both),
            "changed": int(_went_otherwise(both).sum()),
            "median_cpu_s": both["cpu_s"].median(),
            "total_cpu_s": total,
            "of_whole": total / total_whole,
            "trouble": int((pairs["verdict"] == Verdict.ERROR).sum()),
        }


def _place(group: tuple[Any, pd.DataFrame]) -> int:
    """Whatever was asked first: the whole engine, the parts in their order, what joins several."""
    order, without = [NOTHING, *EnginePart], str(group[0])
    return order.index(without) if without in order else len(order) + (without == EVERYTHING)


def _went_otherwise(pairs: pd.DataFrame) -> pd.Series[bool]:
    """By another method, with another bound, or over other sub-problems."""
    found = pd.Series(data=False, index=pairs.index)
    for name in ("method", "lower_bound", "domains"):
        mine, of_whole = pairs[name], pairs[f"{name}_whole"]
        same = (mine == of_whole).fillna(value=False) | (mine.isna() & of_whole.isna())
        found |= ~same.astype(bool)
    return found


def _row_of(task: Task, seed: int, without: Without) -> AblationRow:
    key = task.key()
    asked = key.category, key.network, key.property, key.timeout_s
    return AblationRow(*asked, seed, _name(without))


class _Asking:
    """Networks are prepared once; `scratch`: for what lasts as long as the experiment."""

    def __init__(self, executor: Executor, scratch: Path) -> None:
        self._executor = executor
        self._scratch = scratch
        self._preparer = Preparer(executor, scratch, None)

    def outcome(self, task: Task, seed: int, without: Without) -> Outcome:
        if not isinstance(task.row, Instance):
            return refused(task, Answer(Verdict.ERROR, task.row.cause, task.row.message))
        done = self._preparer.prepare(task.row, self._scratch / "prepare")
        if done.failure:
            return refused(task, done.failure)
        question = self._question(task, task.row, done)
        payload = question_to_json(replace(question, seed=seed, without=without))
        gang = Gang(VERIFY, payload, task.ranks, self._scratch / "gang", task.row.timeout_s)
        outcome, _ = judge(task, done.seconds, self._executor.submit(gang).result())
        return outcome

    def _question(self, task: Task, row: Instance, done: Preparation) -> Question:
        return Question(
            network=str(row.network),
            prepared=str(done.prepared),
            fitted=str(done.fitted or ""),
            property=str(row.property),
            strategy=task.strategy,
            ranks=task.ranks,
            timeout_s=row.timeout_s,
            counterexample=str(self._scratch / "counterexample.gz"),
        )
