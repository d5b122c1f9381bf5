"""Gangs over several machines: torchrun on each, started by a command that reaches it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from types import TracebackType

from runner.contract.errors import UsageError
from runner.contract.shell import read_report, report_path
from runner.execute.executor import Ending, Executor, Gang, GangResult
from runner.execute.link import environment
from runner.execute.started_rank import BEGIN_WITHIN_S, all_began, write_gang

# Of a rank that died, its peers, which see a broken connection; what started ranks that are done.
PEERS_END_WITHIN_S = 5.0
TERM_TO_KILL_S = 2.0
_POLL_S = 0.02


@dataclass(frozen=True)
class Machine:
    """`address`: by which the others reach it. `prefix`: what comes before a command so that it
    runs there, such as `srun --nodes=1 --ntasks=1 --overlap --nodelist=node1`; nothing: here.
    """

    address: str
    prefix: tuple[str, ...] = ()

    @staticmethod
    def of(word: str) -> Machine:
        """From `ADDRESS=COMMAND`, or `ADDRESS` for this machine. Raises UsageError."""
        address, _, command = word.partition("=")
        if not address:
            raise UsageError(f"--machine {word}: ADDRESS=COMMAND is expected, see docs/clusters.md")
        return Machine(address, tuple(shlex.split(command)))


class Torchrun:
    """An `Executor`: ranks of a gang in equal parts on `machines`, which share the gang's folder;
    a gang of one rank goes to `alone`, which is on this machine.

    Ranks end themselves at the deadline, so that none stays where no signal reaches. The time of a
    gang counts from when its last rank began, as torchrun takes seconds to start one.
    """

    def __init__(self, machines: Sequence[Machine], alone: Executor) -> None:
        self._machines = tuple(machines)
        self._alone = alone
        self._gangs: set[_Started] = set()

    def __enter__(self) -> Torchrun:
        self._thread = ThreadPoolExecutor(1, "torchrun")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for gang in tuple(self._gangs):
            gang.kill()
        self._thread.shutdown(cancel_futures=True)

    def submit(self, gang: Gang) -> Future[GangResult]:
        """See `Executor`. Raises UsageError for ranks that the machines cannot share equally."""
        if gang.ranks == 1:
            return self._alone.submit(gang)
        if gang.ranks % len(self._machines):
            raise UsageError(
                f"{gang.ranks} ranks on {len(self._machines)} machines: each must have as many; "
                "change --ranks or --machine"
            )
        return self._thread.submit(self._run, gang)

    def _run(self, gang: Gang) -> GangResult:
        with ExitStack() as stack:
            started = _Started(gang, self._machines, stack)
            self._gangs.add(started)
            try:
                return started.result()
            finally:
                self._gangs.discard(started)


def over_machines(alone: Executor, words: Sequence[str]) -> AbstractContextManager[Executor]:
    """`alone` itself where there are no machines. Raises UsageError for a word that names none."""
    if not words:
        return nullcontext(alone)
    return Torchrun([Machine.of(word) for word in words], alone)


class _Started:
    """A gang whose torchrun was started on every machine."""

    def __init__(self, gang: Gang, machines: Sequence[Machine], stack: ExitStack) -> None:
        self._gang = gang
        file, port = write_gang(gang), _free_port()
        each = gang.ranks // len(machines)
        self._runs = []
        for number, machine in enumerate(machines):
            log = stack.enter_context((gang.folder / f"rank{number * each}.log").open("wb"))
            command = [
                *(*machine.prefix, sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes", str(len(machines)), "--node-rank", str(number)),
                *("--nproc-per-node", str(each), "--master-addr", machines[0].address),
                *("--master-port", str(port), "-m", "runner.execute.started_rank", str(file)),
            ]
            kept = {name: text for name, text in environment().items() if name != "RENDEZVOUS"}
            self._runs.append(
                subprocess.Popen(
                    command,
                    env={**kept, "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the scheduler, which ends them
                )
            )

    def result(self) -> GangResult:
        gang = self._gang
        launched = time.monotonic()
        self._wait(launched + BEGIN_WITHIN_S, lambda: all_began(gang.folder, gang.ranks))
        start = time.monotonic()
        self._wait(start + gang.timeout_s + gang.grace_s, self._reported)
        took = time.monotonic() - start
        # torchrun and srun take their time to end after the last rank has said all.
        late = self._running() and not self._failed() and not self._reported()
        if not late:
            self._wait(time.monotonic() + PEERS_END_WITHIN_S, lambda: False, failing=False)
        self.kill()
        reports = tuple(read_report(gang.folder, rank) for rank in range(gang.ranks))
        silent = next((rank for rank, report in enumerate(reports) if report is None), None)
        if late:
            return GangResult(Ending.KILLED_AT_DEADLINE, took, reports)
        if silent is None:
            return GangResult(Ending.FINISHED, took, reports)
        codes = ", ".join(str(run.returncode) for run in self._runs)
        how = f"no report; torchrun ended with exit codes {codes}"
        return GangResult(Ending.RANK_DIED, took, reports, silent, how)

    def kill(self) -> None:
        """TERM first, which torchrun and srun pass on."""
        for run in self._runs:
            if run.poll() is None:
                run.terminate()
        self._wait(time.monotonic() + TERM_TO_KILL_S, lambda: False, failing=False)
        for run in self._runs:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()

    def _wait(self, until: float, enough: Callable[[], bool], failing: bool = True) -> None:
        """Until the time, `enough()`, no machine runs, or one failed."""
        while time.monotonic() < until and self._running():
            if enough() or (failing and self._failed()):
                return
            time.sleep(_POLL_S)

    def _running(self) -> bool:
        return any(run.poll() is None for run in self._runs)

    def _failed(self) -> bool:
        return any(run.poll() for run in self._runs)

    def _reported(self) -> bool:
        return all(
            report_path(self._gang.folder, rank).exists() for rank in range(self._gang.ranks)
        )


def _free_port() -> int:
    """Free here, and so most likely on the first machine."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
