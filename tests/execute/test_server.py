"""Nothing outlives the server or the scheduler, and a lost server is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import targets

from runner.contract.errors import UsageError
from runner.execute import gang
from runner.execute.gang import Ending, GangResult, RankServer

pytestmark = pytest.mark.alone

TARGETS = targets.__name__


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RankServer]:
    """A server without torch, which may be killed."""
    with RankServer(tmp_path / "server.log", (TARGETS,)) as server:
        server.wait_ready()
        yield server


def _run(server: RankServer, folder: Path, target: str = "sleep", **options: Any) -> GangResult:
    timeout_s = options.pop("timeout_s", 20.0)
    payload = {"seconds": 60, **options}
    return server.run(f"{TARGETS}:{target}", payload, 2, folder / "gang", timeout_s, 0.1)


def _wait_for(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _assert_gone(*pids: int) -> None:
    time.sleep(0.01)  # a process that gave up its files may still be on its last steps
    assert not any(_alive(pid) for pid in pids)


def _ranks(server_pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(server_pid).children()]


class _Fault(threading.Thread):
    """Sends a signal to the server once both ranks run; `ranks` are their pids."""

    def __init__(self, server_pid: int, number: signal.Signals) -> None:
        super().__init__()
        self.server_pid, self.number, self.ranks = server_pid, number, list[int]()
        self.start()

    def run(self) -> None:
        _wait_for(lambda: len(_ranks(self.server_pid)) == 2)
        self.ranks = _ranks(self.server_pid)
        os.kill(self.server_pid, self.number)


@pytest.mark.parametrize("target", ["sleep", "ignore_term"])
def test_a_killed_server_takes_its_ranks_with_it_and_is_replaced(
    server: RankServer, tmp_path: Path, target: str
) -> None:
    fault = _Fault(server.pid, signal.SIGKILL)
    result = _run(server, tmp_path, target)
    fault.join()
    assert result.ended is Ending.SERVER_DIED
    assert result.run_time_s < 2
    _assert_gone(*fault.ranks)
    assert _run(server, tmp_path, "echo").ended is Ending.FINISHED


def test_a_stopped_rank_dies_with_the_server(server: RankServer, tmp_path: Path) -> None:
    fault = _Fault(server.pid, signal.SIGKILL)
    result = _run(server, tmp_path, "signal_self", rank=0, signal=int(signal.SIGSTOP))
    fault.join()
    assert result.ended is Ending.SERVER_DIED
    _assert_gone(*fault.ranks)


def test_a_server_that_hangs_is_replaced_at_the_deadline(
    server: RankServer, tmp_path: Path
) -> None:
    fault = _Fault(server.pid, signal.SIGSTOP)
    result = _run(server, tmp_path, timeout_s=0.5)
    fault.join()
    assert result.ended is Ending.SERVER_DIED
    assert result.run_time_s < 0.5 + 0.1 + 1
    _assert_gone(*fault.ranks, fault.server_pid)
    assert _run(server, tmp_path, "echo").ended is Ending.FINISHED


def test_a_server_that_does_not_start_ranks_is_not_waited_for(
    server: RankServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gang, "STARTED_WITHIN_S", 0.2)
    os.kill(server.pid, signal.SIGSTOP)
    result = _run(server, tmp_path, timeout_s=100)
    assert result.ended is Ending.SERVER_DIED
    assert result.run_time_s < 1.5
    assert _run(server, tmp_path, "echo").ended is Ending.FINISHED


def test_a_server_killed_between_gangs_goes_unnoticed(server: RankServer, tmp_path: Path) -> None:
    os.kill(server.pid, signal.SIGKILL)
    _wait_for(lambda: not _alive(server.pid))
    assert _run(server, tmp_path, "echo").ended is Ending.FINISHED


def test_a_server_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    with RankServer(tmp_path / "server.log", (TARGETS,)) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert _run(server, tmp_path, "echo").ended is Ending.FINISHED


def test_a_function_that_is_preloaded_is_called_once_and_in_the_server(tmp_path: Path) -> None:
    with RankServer(tmp_path / "server.log", (f"{TARGETS}:get_ready",)) as server:
        for _ in range(2):
            result = _run(server, tmp_path, "who_got_ready")
            assert result.reports == ({"pids": [server.pid]},) * 2


def test_leaving_ends_the_server(tmp_path: Path) -> None:
    with RankServer(tmp_path / "server.log", ()) as server:
        pid = server.pid
        assert _alive(pid)
    assert not _alive(pid)


def test_a_server_that_cannot_import_says_why(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    with (
        RankServer(log, ("no_such_module",)) as server,
        pytest.raises(UsageError, match="No module named 'no_such_module'") as refused,
    ):
        server.wait_ready()
    assert str(log) in str(refused.value)


_SCHEDULER = """
import sys
from pathlib import Path
from runner.execute.gang import RankServer
folder = Path(sys.argv[1])
with RankServer(folder / "server.log", (sys.argv[2],)) as server:
    server.wait_ready()
    (folder / "server").write_text(str(server.pid))
    server.run(f"{sys.argv[2]}:{sys.argv[3]}", {"seconds": 60}, 2, folder / "gang", 60.0)
"""


@pytest.mark.parametrize("server_stopped", [False, True], ids=["server well", "server stopped"])
def test_nothing_outlives_a_killed_scheduler(tmp_path: Path, server_stopped: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _SCHEDULER, str(tmp_path), TARGETS, "ignore_term"]
    scheduler = subprocess.Popen(command, env=environment)
    _wait_for(lambda: (tmp_path / "server").exists() and (tmp_path / "server").read_text())
    server_pid = int((tmp_path / "server").read_text())
    _wait_for(lambda: len(_ranks(server_pid)) == 2)
    pids = [server_pid, *_ranks(server_pid)]
    if server_stopped:
        os.kill(server_pid, signal.SIGSTOP)
    scheduler.kill()
    scheduler.wait()
    _wait_for(lambda: not any(_alive(pid) for pid in pids))


_SCHEDULER_THAT_STARTS = """
import sys, time
from pathlib import Path
from runner.execute.gang import RankServer
with RankServer(Path(sys.argv[1]), ("never_imported",)) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.03, 0.1, 0.3])
def test_a_server_does_not_outlive_a_scheduler_that_is_killed_while_it_starts(
    tmp_path: Path, after_s: float
) -> None:
    (tmp_path / "never_imported.py").write_text("import time; time.sleep(600)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", _SCHEDULER_THAT_STARTS, str(tmp_path / "server.log")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as scheduler:
        assert scheduler.stdout is not None
        server_pid = int(scheduler.stdout.readline())
        time.sleep(after_s)
        scheduler.kill()
    _wait_for(lambda: not _alive(server_pid))


def test_the_scheduler_side_imports_no_torch() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys, runner.execute.gang, runner.record.lock; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
