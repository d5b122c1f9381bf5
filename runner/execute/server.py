"""The fork server: imports once what ranks need, then forks gangs of ranks on request.

Started by `runner.execute.gang.RankServer` as `python -m runner.execute.server FD PARENT MODULE…`,
where PARENT is its process and FD a connected socket that carries lines of JSON:

requests  launch (the fields of `Launch`); signal (gang, number)
events    ready; started (gang, pids); exited (gang, rank, code | signal);
          stopped (gang, rank); continued (gang, rank)

The end of the requests ends the server, and its end is the end of every rank. The first event
tells the server's own process id too: `runner.execute.warm` makes servers that nobody started.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import NamedTuple

from runner.contract.limits import die_with_parent
from runner.execute.channel import Channel, ChannelClosed, Message
from runner.execute.children import Wakeup
from runner.execute.launch import Launch, become_rank

# Threads do not survive a fork, and P ranks share the cores: nobody may start a pool. Nor does
# CUDA: a module that asks on import whether there is a GPU (auto_LiRPA does) must ask NVML.
FORKED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}

_log = logging.getLogger(__name__)


class _Rank(NamedTuple):
    gang: int
    rank: int


class ForkServer:
    """Forks ranks and tells what becomes of them; sleeps in between."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ranks: dict[int, _Rank] = {}  # by pid, not yet reaped
        self._groups: dict[int, int] = {}  # process group by gang
        self._wakeup = Wakeup(channel)

    def serve(self) -> None:
        """Returns when the requests end."""
        self._channel.send({"event": "ready", "pid": os.getpid()})
        while True:
            for is_request in self._wakeup.wait():
                if not is_request:
                    self._report_changes()
                    continue
                for request in self._channel.receive():
                    self._answer(request)

    def kill_all(self) -> None:
        for gang in self._groups:
            self._signal(gang, signal.SIGKILL)

    def _answer(self, request: Message) -> None:
        if request.pop("request") == "launch":
            self._launch(Launch(**request))
        else:
            self._signal(request["gang"], request["number"])

    def _launch(self, launch: Launch) -> None:
        server, pids = os.getpid(), list[int]()
        for rank in range(launch.ranks):
            pid = os.fork()
            if pid == 0:
                self._run_rank(launch, rank, server)
            # One process group per gang, led by rank 0: a signal reaches all of it at once.
            os.setpgid(pid, pids[0] if pids else pid)
            pids.append(pid)
            self._ranks[pid] = _Rank(launch.gang, rank)
        self._groups[launch.gang] = pids[0]
        self._channel.send({"event": "started", "gang": launch.gang, "pids": pids})

    def _run_rank(self, launch: Launch, rank: int, server: int) -> None:
        """In the child: never returns, whatever happens."""
        code = 1
        try:
            self._wakeup.leave()
            # A copy of the socket in a rank would hide the end of the server.
            self._channel.close()
            code = become_rank(launch, rank, server)
        finally:
            os._exit(code)

    def _signal(self, gang: int, number: int) -> None:
        if any(rank.gang == gang for rank in self._ranks.values()):
            os.killpg(self._groups[gang], number)

    def _report_changes(self) -> None:
        # A rank that lost its peer fails soon after it: of deaths seen together, signals go first.
        changes = sorted(self._changes(), key=lambda change: change.get("signal") is None)
        for change in changes:
            self._channel.send(change)

    def _changes(self) -> Iterator[Message]:
        for pid, rank in list(self._ranks.items()):
            options = os.WNOHANG | os.WUNTRACED | os.WCONTINUED
            while pid in self._ranks:
                changed, status = os.waitpid(pid, options)
                if not changed:
                    break
                if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                    self._forget(pid)
                yield {**_event(status), "gang": rank.gang, "rank": rank.rank}

    def _forget(self, pid: int) -> None:
        gang = self._ranks.pop(pid).gang
        if all(rank.gang != gang for rank in self._ranks.values()):
            del self._groups[gang]


def _event(status: int) -> Message:
    if os.WIFSTOPPED(status):
        return {"event": "stopped"}
    if os.WIFCONTINUED(status):
        return {"event": "continued"}
    if os.WIFSIGNALED(status):
        return {"event": "exited", "code": None, "signal": os.WTERMSIG(status)}
    return {"event": "exited", "code": os.WEXITSTATUS(status), "signal": None}


def preload(modules: list[str]) -> None:
    """Import what ranks need, before any is forked; of `module:function` call the function too."""
    gc.disable()  # of what is imported nearly nothing is garbage; looking takes a tenth of the time
    for name in modules:
        module, _, function = name.partition(":")
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:  # harmless while idle (ONNX Runtime has one); at work it may hold a lock
        _log.warning("importing %s started %d threads", ", ".join(modules), threads - 1)
    # What is loaded stays: no collection in a rank touches, and so copies, these pages.
    gc.collect()
    gc.freeze()
    gc.enable()


def serve(channel: Channel) -> None:
    """Until the requests end, which is the end of every rank."""
    server = ForkServer(channel)
    try:
        server.serve()
    except ChannelClosed:
        server.kill_all()


def main(arguments: list[str]) -> None:
    descriptor, parent, *modules = arguments
    die_with_parent(int(parent))
    logging.basicConfig(level=logging.INFO)
    os.environ.update(FORKED)
    channel = Channel(socket.socket(fileno=int(descriptor)))
    preload(modules)
    serve(channel)


if __name__ == "__main__":
    main(sys.argv[1:])
