"""One question, asked from a script, a notebook or a command: `from runner import verify`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from runner.contract.errors import UsageError
from runner.contract.question import Question
from runner.contract.strategy import Engine
from runner.contract.vocabulary import Cause, Device, Method, Verdict
from runner.contract.wire import question_to_json
from runner.execute.executor import Executor, Gang
from runner.execute.gang import RankServer
from runner.problem.files import read_bytes
from runner.problem.instances import Instance
from runner.record.schema import Outcome, RankRow
from runner.run.auto import settled, strategy_or_auto, told
from runner.run.judge import judge, refused
from runner.run.plan import Task, ranks_of
from runner.run.prepare import Preparation, Preparer
from runner.run.programs import VERIFY

Word = TypeVar("Word", Method, Device)


@dataclass(frozen=True)
class Verified:
    """What became of one question.

    `outcome`: as a row of outcomes.csv. `ranks`: as rows of ranks.csv, one for each rank that
    reported. `counterexample`: of a `sat`, its inputs and outputs, flat.
    """

    outcome: Outcome
    ranks: tuple[RankRow, ...]
    counterexample: tuple[list[float], list[float]] | None = None

    @property
    def verdict(self) -> Verdict:
        return self.outcome.verdict


@dataclass(frozen=True)
class Posed:
    """A question that makes sense: `instance` with its time limit, and what its ranks
    are asked, which lacks the converted network and where a counterexample is to be written.
    """

    instance: Instance
    question: Question

    @property
    def task(self) -> Task:
        return Task(self.instance, self.question.strategy, self.question.ranks, "question")

    def within(self, timeout_s: float) -> Posed:
        """The same, with another time limit."""
        instance = replace(self.instance, timeout_s=timeout_s)
        return Posed(instance, replace(self.question, timeout_s=timeout_s))


def verify(
    network: str | Path,
    property: str | Path,
    *,
    timeout: float = 300.0,
    strategy: str = "baseline",
    ranks: int = 2,
    method: Method | str = Method.COMPLETE,
    device: Device | str = Device.AUTO,
    seed: int = 0,
    work_memory_mib: float | None = None,
    executor: Executor | None = None,
) -> Verified:
    """Answers one question on rank processes of this machine; `timeout` in seconds.

    `strategy`: by name, a layout such as `tp=2,sp=2`, or `auto`. `ranks`: of a parallel strategy
    by name; a layout has its own number, `auto` the machine's, and others have one. Starting takes
    some seconds, which an `executor` that is kept (`runner.execute.gang.RankServer`, entered)
    saves the next question. What is wrong with the files is an outcome, with its cause and message.
    Raises UsageError for a strategy, method or device that does not exist, or a time limit that is
    none.
    """
    asked = posed(
        network,
        property,
        timeout=timeout,
        strategy=strategy,
        ranks=ranks,
        method=method,
        device=device,
        seed=seed,
        work_memory_mib=work_memory_mib,
    )
    with tempfile.TemporaryDirectory() as scratch:
        if executor is not None:
            return _verified(asked, executor, Path(scratch))
        with RankServer(Path(scratch) / "server.log") as own:
            return _verified(asked, own, Path(scratch))


def posed(
    network: str | Path,
    property: str | Path,
    *,
    timeout: float,
    strategy: str = "baseline",
    ranks: int = 2,
    method: Method | str = Method.COMPLETE,
    device: Device | str = Device.AUTO,
    seed: int = 0,
    work_memory_mib: float | None = None,
) -> Posed:
    """See `verify`. Raises UsageError as it does."""
    chosen = strategy_or_auto(strategy)
    if not 0 < timeout < float("inf"):
        raise UsageError(f"timeout={timeout}: a positive number of seconds is needed")
    if chosen.engine is Engine.NULL:
        raise UsageError("strategy null answers nothing; choose another")
    row = Instance(
        category="",
        network=Path(network).absolute(),
        property=Path(property).absolute(),
        timeout_s=timeout,
        network_name=Path(network).name,
        property_name=Path(property).name,
        source=Path(network),
        line=1,
    )
    question = Question(
        network=str(row.network),
        prepared="",
        property=str(row.property),
        strategy=chosen,
        ranks=ranks_of(chosen, ranks, _known(Device, device)),
        timeout_s=timeout,
        method=_known(Method, method),
        device=_known(Device, device),
        seed=seed,
        work_bytes=None if work_memory_mib is None else int(work_memory_mib * 2**20),
    )
    return Posed(row, question)


def answer(
    asked: Posed, done: Preparation, executor: Executor, scratch: Path
) -> tuple[Outcome, tuple[RankRow, ...]]:
    """What ranks say of it; the counterexample of a `sat` is `counterexample_in(scratch)`."""
    if done.failure:
        return refused(asked.task, done.failure, done.seconds), ()
    file = counterexample_in(scratch)
    file.unlink(missing_ok=True)
    choice = settled(asked.question.strategy, done.bytes, asked.question.device)
    task = replace(asked.task, strategy=choice.strategy)
    question = replace(
        asked.question,
        prepared=str(done.prepared),
        fitted=str(done.fitted or ""),
        strategy=task.strategy,
        counterexample=str(file),
    )
    payload = question_to_json(question)
    gang = Gang(VERIFY, payload, question.ranks, scratch / "gang", question.timeout_s)
    outcome, rows = judge(task, done.seconds, executor.submit(gang).result())
    return told(outcome, choice), tuple(rows)


def counterexample_in(scratch: Path) -> Path:
    return scratch / "counterexample.gz"


def _verified(asked: Posed, executor: Executor, scratch: Path) -> Verified:
    done = Preparer(executor, scratch, None).prepare(asked.instance, scratch / "prepare")
    outcome, rows = answer(asked, done, executor, scratch)
    return Verified(outcome, rows, _counterexample(outcome, counterexample_in(scratch)))


def _counterexample(outcome: Outcome, file: Path) -> tuple[list[float], list[float]] | None:
    if outcome.verdict is not Verdict.SAT:
        return None
    # Importing numpy takes a while, which who needs the text alone saves.
    from runner.problem.property.counterexample import parse_counterexample

    text = read_bytes(file, Cause.INVALID_COUNTEREXAMPLE).decode()
    inputs, outputs = parse_counterexample(text)
    return inputs.tolist(), outputs.tolist()


def _known(kind: type[Word], word: str) -> Word:
    """Raises UsageError that lists the known words."""
    if word not in list(kind):
        known = ", ".join(kind)
        raise UsageError(f"unknown {kind.__name__.lower()} {word!r}; known: {known}")
    return kind(word)
