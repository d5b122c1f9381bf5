"""A server that is kept warm between commands: each that connects has a fork of it to itself.

Started by `start` as `python -m runner.execute.warm DOOR IDLE_S MODULE…`: it imports what ranks
need, listens on the Unix socket DOOR, and forks a fork server (`runner.execute.server`) for each
that connects, so that any number are served at once. It goes away when nobody has been connected
for IDLE_S seconds; killed, it takes with it all that it forked, and leaves a door that none opens.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from runner.contract.limits import die_with_parent
from runner.execute.channel import Channel
from runner.execute.children import Wakeup
from runner.execute.link import environment
from runner.execute.server import FORKED, preload, serve

WAITING = 64  # connections that have not been answered yet

_log = logging.getLogger(__name__)


def start(door: Path, idle_s: float, modules: Sequence[str]) -> None:
    """Start a warm server, which listens once it has imported `modules`; at most one a door."""
    command = [sys.executable, "-m", "runner.execute.warm", str(door), str(idle_s), *modules]
    with door.with_suffix(".log").open("ab") as log:
        subprocess.Popen(
            command,
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # what ends the command that starts it does not end it
        )


class WarmServer:
    """Answers the door until nobody has come for a while."""

    def __init__(self, listener: socket.socket, idle_s: float) -> None:
        self._listener = listener
        self._idle_s = idle_s
        self._forks: set[int] = set()
        self._wakeup = Wakeup(listener)

    def serve(self) -> None:
        """Returns when it has been idle for long."""
        leave = monotonic() + self._idle_s
        while self._forks or monotonic() < leave:
            wait = None if self._forks else max(0.0, leave - monotonic())
            for is_request in self._wakeup.wait(wait):
                if is_request:
                    self._answer()
                else:
                    self._reap()
                leave = monotonic() + self._idle_s

    def _answer(self) -> None:
        connection, _ = self._listener.accept()
        warm, pid = os.getpid(), os.fork()
        if pid:
            self._forks.add(pid)
            connection.close()
            return
        try:
            self._become_server(connection, warm)
        finally:
            os._exit(0)

    def _become_server(self, connection: socket.socket, warm: int) -> None:
        """In the child: returns when the connection ends."""
        self._wakeup.leave()
        self._listener.close()
        die_with_parent(warm)
        serve(Channel(connection))

    def _reap(self) -> None:
        for pid in list(self._forks):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self._forks.discard(pid)


def main(arguments: list[str]) -> None:
    name, idle_s, *modules = arguments
    door = Path(name)
    logging.basicConfig(level=logging.INFO)
    with door.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # there is one already
        os.environ.update(FORKED)
        preload(modules)
        with socket.socket(socket.AF_UNIX) as listener:
            new = door.with_suffix(".new")
            new.unlink(missing_ok=True)
            listener.bind(str(new))
            listener.listen(WAITING)
            new.replace(door)  # nobody finds a door that is not answered, unless it was killed
            _log.info("warm: process %d", os.getpid())
            WarmServer(listener, float(idle_s)).serve()
            door.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])
