"""One instance asked of another verifier's program."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.contract.errors import InstanceError
from runner.contract.verifier import Arguments, Asked, Said, Verifier
from runner.contract.vocabulary import Cause, Verdict
from runner.execute.program import ProgramResult
from runner.problem.claim import Checked, Claim
from runner.problem.instances import Instance
from runner.record.folder import RunFolder
from runner.record.manifest import Command
from runner.record.schema import Outcome, RankRow
from runner.run.confirming import confirmed
from runner.run.install import tool_environment
from runner.run.judge import Answer, refused
from runner.run.judge_program import answered, believed, judge_program, unprepared
from runner.run.plain_files import PlainFiles
from runner.run.plan import Task
from runner.run.step import Step

PREPARE_TIMEOUT_S = 600.0  # as in VNN-COMP
GRACE_S = 2.0  # as our own ranks have
_GIB = 2**30


class Foreign:
    """Asks one question after another; `scratch` keeps the networks that it had to unpack."""

    def __init__(self, command: Command, folder: RunFolder, scratch: Path) -> None:
        self._command = command
        self._folder = folder
        self._scratch = scratch
        self._files = PlainFiles(scratch)
        limit = command.memory_limit_gib
        self._memory_limit_bytes = None if limit is None else int(limit * _GIB)

    def run(self, task: Task, row: Instance, verifier: Verifier) -> tuple[Outcome, list[RankRow]]:
        with self._home() as home:
            try:
                asked = self._asked(row, home)
                program = verifier.program(asked)
            except InstanceError as error:
                return refused(task, Answer(Verdict.ERROR, error.cause, str(error))), []
            prepare_time_s, failure = self._prepare(task, verifier, asked, home)
            if failure:
                return refused(task, failure, prepare_time_s), []
            ran = Step(home, "run")
            timeout_s = row.timeout_s + GRACE_S
            result = self._run(verifier, program, ran, asked.folder, timeout_s)
            said = verifier.read(asked, ran.output)
            heard = believed(said, self._check(task, row, said, home), ran.last_error)
            ran.keep(self._folder.log(*_place(task), rank=0))
            answer = answered(heard, result, ran.last_error)
        return judge_program(task, prepare_time_s, result, answer, heard)

    @contextmanager
    def _home(self) -> Iterator[Path]:
        """A folder for all files of one question."""
        home = Path(tempfile.mkdtemp(dir=self._scratch)).absolute()
        yield home
        shutil.rmtree(home, ignore_errors=True)

    def _asked(self, row: Instance, home: Path) -> Asked:
        folder = home / "work"
        folder.mkdir()
        return Asked(
            category=row.category,
            network=self._files.network(row.network),
            property=self._files.property(row.property, home / "property"),
            timeout_s=row.timeout_s,
            folder=folder,
        )

    def _prepare(
        self, task: Task, verifier: Verifier, asked: Asked, home: Path
    ) -> tuple[float | None, Answer | None]:
        """How long it took, and why it failed if it did."""
        arguments = verifier.preparation(asked)
        if arguments is None:
            return None, None
        step = Step(home, "prepare")
        result = self._run(verifier, arguments, step, asked.folder, PREPARE_TIMEOUT_S)
        step.keep(self._folder.preparation_log(*_place(task)))
        what = Path(arguments[0]).name
        return result.run_time_s, unprepared(result, what, step.last_error)

    def _run(
        self, verifier: Verifier, arguments: Arguments, step: Step, folder: Path, timeout_s: float
    ) -> ProgramResult:
        environment = tool_environment(verifier, self._command.device)
        return step.run(arguments, environment, folder, timeout_s, self._memory_limit_bytes)

    def _check(self, task: Task, row: Instance, said: Said, home: Path) -> Checked | None:
        """What is found of the counterexample of a `sat`; None where there is none."""
        counterexample = self._folder.counterexample(*_place(task)).absolute()
        counterexample.parent.mkdir(parents=True, exist_ok=True)
        counterexample.unlink(missing_ok=True)
        if said.verdict is not Verdict.SAT or not said.counterexample:
            return None
        claimed = home / "claimed.txt"
        claimed.write_text(said.counterexample)
        claim = Claim(
            network=str(row.network),
            property=str(row.property),
            said=str(claimed),
            counterexample=str(counterexample),
            checked=str(home / "checked.json"),
        )
        found = confirmed(claim, home)
        if found.cause is not Cause.NONE:
            kept = self._folder.claim(*_place(task))
            kept.parent.mkdir(parents=True, exist_ok=True)
            claimed.replace(kept)
        return found


def _place(task: Task) -> tuple[str, str, str]:
    """What names the files of a task in the run folder."""
    return task.strategy.name, task.key().category, task.name
