"""The ways to a fork server: started as a child of this process, or found warm behind a socket."""

from __future__ import annotations

import logging
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Protocol

from runner.execute.channel import Channel, ChannelClosed

RANKS_DIE_WITHIN_S = 1.0
ATTACHED_WITHIN_S = 1.0  # a warm server forks in hundredths of a second; a suspended one never does

_log = logging.getLogger(__name__)


class Link(Protocol):
    """A fork server that this process talks to, and how it is ended."""

    channel: Channel
    pid: int

    def becomes_ready(self, timeout_s: float) -> bool:
        """Whether the server says so in time, and still runs."""

    def interrupt(self) -> None:
        """Its end begins; another thread, which reads the channel, is told by that."""

    def end(self) -> None:
        """Ranks, even suspended ones, die with the server. Once more: nothing happens."""

    @property
    def failed(self) -> bool:
        """Of one that has ended: whether it did so by itself, with an error."""


class Spawned:
    """A child of this process, which the kernel kills when this thread ends."""

    def __init__(self, log: Path, preload: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        # The server and its ranks hold the other end of this pipe: its end is their end.
        self._alive, held = os.pipe()
        command = [sys.executable, "-m", "runner.execute.server"]
        command += [str(theirs.fileno()), str(os.getpid())]
        log.parent.mkdir(parents=True, exist_ok=True)
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, *preload],
                env=environment(),
                pass_fds=[theirs.fileno(), held],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C at the terminal is for the scheduler, which then ends the server.
                start_new_session=True,
            )
        os.close(held)
        self.pid = self._process.pid
        self.channel = Channel(ours)
        self._ready = self._ended = False

    def becomes_ready(self, timeout_s: float) -> bool:
        self._ready = self._ready or _says_ready(self.channel, timeout_s) is not None
        return self._ready and self._process.poll() is None

    def interrupt(self) -> None:
        self._process.kill()

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._process.kill()
        self._process.wait()
        self.channel.close()
        if not select.select([self._alive], [], [], RANKS_DIE_WITHIN_S)[0]:
            _log.warning("ranks outlive their server, process %d", self.pid)
        os.close(self._alive)

    @property
    def failed(self) -> bool:
        return self._process.returncode > 0


class Attached:
    """A fork of a warm server (`runner.execute.warm`), which ends when this connection does."""

    failed = False  # whatever became of it, one that is started here may do

    def __init__(self, connection: socket.socket, channel: Channel, pid: int) -> None:
        self.channel = channel
        self.pid = pid
        self._connection = connection
        self._ended = False

    def becomes_ready(self, timeout_s: float) -> bool:
        try:
            self.channel.receive(0)  # or it would not be here, but it may have died since
        except ChannelClosed:
            return False
        return True

    def interrupt(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        give_up = monotonic() + RANKS_DIE_WITHIN_S
        try:
            self._connection.shutdown(socket.SHUT_WR)
            while (left := give_up - monotonic()) > 0:
                self.channel.receive(left)
            _log.warning("the warm server's fork, process %d, does not end", self.pid)
        except (ChannelClosed, OSError):
            pass
        self.channel.close()


def attached(door: Path) -> Attached | None:
    """The warm server that listens at `door`; None where none answers, for whatever reason."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ATTACHED_WITHIN_S)
    try:
        connection.connect(str(door))
    except OSError as error:
        _log.info("no warm server at %s: %s", door, error)
        connection.close()
        return None
    connection.settimeout(None)
    channel = Channel(connection)
    pid = _says_ready(channel, ATTACHED_WITHIN_S)
    if pid is None:
        _log.warning("the warm server at %s does not answer", door)
        channel.close()
        return None
    return Attached(connection, channel, pid)


def environment() -> dict[str, str]:
    """Of a process that can import what this one can."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path}


def _says_ready(channel: Channel, timeout_s: float) -> int | None:
    """Process id of the server that is ready; None where it is not in time, or gone."""
    give_up = monotonic() + timeout_s
    try:
        while (left := give_up - monotonic()) > 0:
            for event in channel.receive(left):
                if event["event"] == "ready":
                    return int(event["pid"])
    except ChannelClosed:
        pass
    return None
