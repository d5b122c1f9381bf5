"""The scheduler's side of a gang: start it, watch it, end it. Imports no torch."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import Any

from runner.contract.errors import UsageError
from runner.execute.channel import ChannelClosed
from runner.execute.executor import GRACE_S, Gang
from runner.execute.launch import Launch
from runner.execute.link import Link, Spawned, attached
from runner.execute.watch import Ending, GangResult, Watch

__all__ = ["PRELOAD", "Ending", "GangResult", "RankServer"]

PRELOAD = ("runner.engine.programs.verify:get_ready", "runner.engine.network.lirpa", "onnxsim")

START_ATTEMPTS = 3  # somebody may kill it, or have killed it while it was idle
READY_WITHIN_S = 120.0  # importing torch from a cold disk takes a while
STARTED_WITHIN_S = 10.0
TERM_TO_KILL_S = 0.25
KILL_TO_LOST_S = 0.5
DYING_S = 5.0  # a GPU's driver takes back what a killed rank held before that rank is gone

_log = logging.getLogger(__name__)


class RankServer:
    """An `Executor`: a warm fork server that runs one gang at a time, and is started anew when it
    dies.

    One thread of its own starts the server and follows every gang, so any thread may submit. The
    kernel kills the server, and with it every rank, when that thread ends, as it does with this
    process. Ranks import what this process can import. `preload` names the modules they will need,
    which are imported while the caller goes on, or a function of one, `module:function`, which is
    called. `door`: where a warm server may listen, whose fork is taken instead if it answers.
    """

    def __init__(
        self, log: Path, preload: Sequence[str] = PRELOAD, door: Path | None = None
    ) -> None:
        self._log = log
        self._preload = tuple(preload)
        self._door = door
        self._gangs = 0
        self._leaving = Lock()  # held while a server is started, so that none is missed
        self._left = False

    def __enter__(self) -> RankServer:
        self._left = False
        self._thread = ThreadPoolExecutor(1, "gangs")
        self._thread.submit(self._start).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The gang that runs, if one does, is ended; those that wait are cancelled."""
        with self._leaving:
            self._left = True
            self._link.interrupt()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._stop()

    @property
    def pid(self) -> int:
        """Process id of the server; another one after a restart."""
        return self._link.pid

    def submit(self, gang: Gang) -> Future[GangResult]:
        """See `Executor`. Gangs run one after the other, in the order of their submission."""
        return self._thread.submit(self._run, gang)

    def run(
        self,
        target: str,
        payload: dict[str, Any],
        ranks: int,
        folder: Path,
        timeout_s: float,
        grace_s: float = GRACE_S,
        memory_limit_bytes: int | None = None,
    ) -> GangResult:
        """Submit the gang of these fields, and wait for what becomes of it."""
        return self.submit(
            Gang(target, payload, ranks, folder, timeout_s, memory_limit_bytes, grace_s)
        ).result()

    def wait_ready(self, timeout_s: float = READY_WITHIN_S) -> None:
        """Wait until gangs start without delay.

        Raises UsageError with the last line of the server's log if it cannot be started.
        """
        self._thread.submit(self._become_ready, timeout_s).result()

    def _become_ready(self, timeout_s: float) -> None:
        for _ in range(START_ATTEMPTS):
            if self._link.becomes_ready(timeout_s):
                return
            self._stop()
            words, failed_by_itself = self._last_words(), self._link.failed
            self._start()
            if failed_by_itself or self._left:
                break
        raise UsageError(f"the rank server does not start; see {self._log}: {words}")

    def _run(self, gang: Gang) -> GangResult:
        _clear(gang.folder)
        self._become_ready(READY_WITHIN_S)
        self._gangs += 1
        launch = Launch(
            gang=self._gangs,
            ranks=gang.ranks,
            target=gang.target,
            payload=gang.payload,
            folder=str(gang.folder),
            memory_limit_bytes=gang.memory_limit_bytes,
        )
        watch = Watch(launch)
        start = monotonic()
        try:
            self._channel.send({"request": "launch", **asdict(launch)})
            self._follow(watch, start, deadline=start + gang.timeout_s + gang.grace_s)
        except ChannelClosed:
            if not self._left:
                _log.warning("the rank server died or does not answer; see %s", self._log)
            watch.ended = Ending.SERVER_DIED
            self._stop()
        result = watch.result(run_time_s=monotonic() - start)
        if result.ended is Ending.SERVER_DIED:
            self._start()
        return result

    def _follow(self, watch: Watch, start: float, deadline: float) -> None:
        """Until the last rank is gone. Raises ChannelClosed if the server is gone or stuck."""
        started_by = start + STARTED_WITHIN_S
        self._listen(watch, min(started_by, deadline), lambda: bool(watch.pids))
        if not watch.pids and monotonic() >= started_by:
            raise ChannelClosed
        self._listen(watch, deadline, lambda: watch.over or watch.ended is not None)
        if watch.ended is Ending.FINISHED and watch.dying:
            self._listen(watch, monotonic() + DYING_S, lambda: not watch.dying)
        watch.settle()
        if not watch.over and watch.ended is None:
            watch.ended = Ending.KILLED_AT_DEADLINE
            self._signal(watch, signal.SIGTERM)
            self._listen(watch, monotonic() + TERM_TO_KILL_S, lambda: watch.over)
        if not watch.over:
            self._signal(watch, signal.SIGKILL)
            self._listen(watch, monotonic() + KILL_TO_LOST_S, lambda: watch.over)
        if watch.dying:
            self._listen(watch, monotonic() + DYING_S, lambda: watch.over)
        if not watch.over:  # nothing outlives a KILL, so it was not sent
            raise ChannelClosed

    def _listen(self, watch: Watch, until: float, done: Callable[[], bool]) -> None:
        """Take in events until `done` or the time `until`, whichever comes first."""
        while not done() and (left := until - monotonic()) > 0:
            for event in self._channel.receive(left):
                watch.note(event)

    def _signal(self, watch: Watch, number: signal.Signals) -> None:
        self._channel.send({"request": "signal", "gang": watch.gang, "number": int(number)})

    def _start(self) -> None:
        with self._leaving:
            if self._left:
                return
            warm = attached(self._door) if self._door else None
            self._link: Link = warm or Spawned(self._log, self._preload)
            self._channel = self._link.channel

    def _stop(self) -> None:
        self._link.end()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return lines[-1] if lines else "it said nothing"


def _clear(folder: Path) -> None:
    """Nothing of an earlier gang may be taken for this one's."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*folder.glob("rank*.json"), *folder.glob("rendezvous*")):
        path.unlink()
