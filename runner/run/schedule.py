"""The loop of a run: every task that is not done yet, one gang at a time."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from runner.contract.question import Question
from runner.contract.strategy import Engine
from runner.contract.vocabulary import Cause, Verdict
from runner.contract.wire import question_to_json
from runner.execute.executor import Executor, Gang
from runner.problem.instances import Instance, MalformedRow
from runner.record.folder import RunFolder
from runner.record.manifest import Command
from runner.record.schema import Outcome, RankRow
from runner.run.auto import settled, told
from runner.run.foreign import Foreign
from runner.run.judge import Answer, judge, refused
from runner.run.plan import Task
from runner.run.prepare import Preparation, Preparer
from runner.run.programs import VERIFY

# A rank without room for its report dies without one.
_PERHAPS_THE_DISK = frozenset(
    {
        *(Cause.INTERNAL_ERROR, Cause.RANK_DIED),
        # So does another verifier, without its answer.
        *(Cause.PREPARE_FAILED, Cause.VERIFIER_FAILED, Cause.UNREADABLE_ANSWER),
    }
)

_GIB, _MIB = 2**30, 2**20


class Observer(Protocol):
    """Who wants to know how a run goes."""

    def started(self, task: Task) -> None:
        """A task is about to run."""

    def recorded(self, outcome: Outcome) -> None:
        """Its rows are on disk."""


def schedule(
    tasks: Sequence[Task],
    command: Command,
    folder: RunFolder,
    executor: Executor,
    observer: Observer,
    target: str = VERIFY,
    networks: Path | None = None,
) -> None:
    """Runs and records every task that `folder` has no outcome of.

    `target`: what a rank does with a Question; it gives a Report, both as JSON. `executor` need not
    have been entered where no task is of our own strategies. `networks`: a folder for converted
    networks that other runs of the same command share.

    Raises DiskFullError when there is no room left, and UsageError when no gang can be started.
    """
    with folder.disk_full_named(), _scratch(folder.path / "scratch") as scratch:
        worker = _Worker(command, folder, executor, scratch, target, networks)
        for task in tasks:
            if task.key() in folder.done:
                continue
            observer.started(task)
            outcome, ranks = worker.run(task)
            if outcome.cause is Cause.DISK_FULL:
                raise OSError(errno.ENOSPC, outcome.message)
            if outcome.cause in _PERHAPS_THE_DISK:
                folder.check_room()
            folder.record(outcome, ranks)
            observer.recorded(outcome)


class _Worker:
    """Runs one task after another."""

    def __init__(
        self,
        command: Command,
        folder: RunFolder,
        executor: Executor,
        scratch: Path,
        target: str,
        networks: Path | None,
    ) -> None:
        self._target = target
        self._command = command
        self._folder = folder
        self._executor = executor
        self._scratch = scratch
        limit = command.memory_limit_gib
        self._memory_limit_bytes = None if limit is None else int(limit * _GIB)
        work = command.work_memory_mib
        self._work_bytes = None if work is None else int(work * _MIB)
        self._preparer = Preparer(executor, scratch, self._memory_limit_bytes, networks)
        self._foreign = Foreign(command, folder, scratch)

    def run(self, task: Task) -> tuple[Outcome, list[RankRow]]:
        row = task.row
        if isinstance(row, MalformedRow):
            return refused(task, Answer(Verdict.ERROR, row.cause, row.message)), []
        if task.verifier is not None:
            return self._foreign.run(task, row, task.verifier)
        if task.strategy.engine is Engine.NULL:
            return self._verify(task, row, None)
        with self._gang_folder(task) as gang:
            done = self._preparer.prepare(row, gang)
        if done.failure:
            return refused(task, done.failure, done.seconds), []
        choice = settled(task.strategy, done.bytes, self._command.device)
        chosen = replace(task, strategy=choice.strategy)
        outcome, ranks = self._verify(chosen, row, done)
        return told(outcome, choice), ranks

    def _verify(
        self, task: Task, row: Instance, done: Preparation | None
    ) -> tuple[Outcome, list[RankRow]]:
        strategy, category = task.strategy.name, task.key().category
        question = Question(
            network=str(row.network),
            prepared=str(done.prepared) if done else "",
            fitted=str(done.fitted) if done and done.fitted else "",
            property=str(row.property),
            strategy=task.strategy,
            ranks=task.ranks,
            timeout_s=row.timeout_s,
            method=self._command.method,
            attack=self._command.attack,
            device=self._command.device,
            seed=self._command.seed,
            memory_limit_bytes=self._memory_limit_bytes,
            counterexample=str(self._counterexample(task)),
            bounds=str(self._folder.bounds(strategy, category, task.name).absolute()),
            progress=str(self._folder.progress(strategy, category, task.name).absolute()),
            workload=self._command.workload,
            work_bytes=self._work_bytes,
        )
        with self._gang_folder(task) as gang:
            result = self._executor.submit(
                Gang(
                    target=self._target,
                    payload=question_to_json(question),
                    ranks=task.ranks,
                    folder=gang,
                    timeout_s=row.timeout_s,
                )
            ).result()
        return judge(task, done.seconds if done else None, result)

    def _counterexample(self, task: Task) -> Path:
        """Its path, in a folder that exists, free of what a killed attempt may have left."""
        strategy, category = task.strategy.name, task.key().category
        path = self._folder.counterexample(strategy, category, task.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path.absolute()

    @contextmanager
    def _gang_folder(self, task: Task) -> Iterator[Path]:
        """A folder for one gang; what its ranks said is kept in the run folder."""
        gang = Path(tempfile.mkdtemp(dir=self._scratch)).absolute()
        yield gang
        for rank in range(task.ranks):
            said = gang / f"rank{rank}.log"
            if said.exists() and said.stat().st_size:
                strategy, category = task.strategy.name, task.key().category
                log = self._folder.log(strategy, category, task.name, rank)
                log.parent.mkdir(parents=True, exist_ok=True)
                said.replace(log)
        shutil.rmtree(gang)


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """An empty folder for what only lasts as long as the run; a killed run leaves its own."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path.absolute()
    finally:
        shutil.rmtree(path, ignore_errors=True)
