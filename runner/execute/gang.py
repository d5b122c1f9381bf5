"""The scheduler's side of a gang: start it, watch it, end it. Imports no torch."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from runner.contract.errors import UsageError
from runner.execute.channel import ChannelClosed
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
    """A warm fork server that runs one gang at a time, and is started anew when it dies.

    The thread that enters it must outlive it, and no second thread may use it: the kernel kills
    the server, and with it every rank, when that thread ends. Ranks import what this process can
    import. `preload` names the modules they will need, which are imported while the caller goes on,
    or a function of one, `module:function`, which is called.
    `door`: where a warm server may listen, whose fork is taken instead if it answers.
    """

    def __init__(
        self, log: Path, preload: Sequence[str] = PRELOAD, door: Path | None = None
    ) -> None:
        self._log = log
        self._preload = tuple(preload)
        self._door = door
        self._gangs = 0

    def __enter__(self) -> RankServer:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """Process id of the server; another one after a restart."""
        return self._link.pid

    def wait_ready(self, timeout_s: float = READY_WITHIN_S) -> None:
        """Wait until gangs start without delay.

        Raises UsageError with the last line of the server's log if it cannot be started.
        """
        for _ in range(START_ATTEMPTS):
            if self._link.becomes_ready(timeout_s):
                return
            self._stop()
            words, failed_by_itself = self._last_words(), self._link.failed
            self._start()
            if failed_by_itself:
                break
        raise UsageError(f"the rank server does not start; see {self._log}: {words}")

    def run(
        self,
        target: str,
        payload: dict[str, Any],
        ranks: int,
        folder: Path,
        timeout_s: float,
        grace_s: float = 2.0,
        memory_limit_bytes: int | None = None,
    ) -> GangResult:
        """Call `target` ("module:function") with `payload` in each of `ranks` processes.

        Payload and result are dicts of JSON values. Ranks are expected to keep to `timeout_s` by
        themselves; `grace_s` later they are ended. Each may allocate `memory_limit_bytes` of host
        memory. `folder` is created and receives `rank<r>.json` and `rank<r>.log`.
        Raises UsageError if the server cannot be started.
        """
        _clear(folder)
        self.wait_ready()
        self._gangs += 1
        launch = Launch(self._gangs, ranks, target, payload, str(folder), memory_limit_bytes)
        watch = Watch(launch)
        start = monotonic()
        try:
            self._channel.send({"request": "launch", **asdict(launch)})
            self._follow(watch, start, deadline=start + timeout_s + grace_s)
        except ChannelClosed:
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
