"""A warm server: forks for whoever connects, gone when idle, and no matter when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import targets

from runner.execute import warm
from runner.execute.gang import Ending, RankServer
from runner.execute.link import attached

pytestmark = pytest.mark.alone

TARGETS = targets.__name__


@pytest.fixture
def door() -> Iterator[Path]:
    """In a folder with a short name: the kernel takes no long one for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "door.sock"
        yield path
        for process in serving(path):
            process.kill()


def serving(door: Path) -> list[psutil.Process]:
    """The warm servers of a door and what they forked."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(door) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def wait_for(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def started(door: Path, idle_s: float = 60.0) -> psutil.Process:
    """A warm server without torch, which listens."""
    warm.start(door, idle_s, (TARGETS,))
    wait_for(door.exists)
    return serving(door)[0]


def server_of(folder: Path, door: Path) -> int:
    """The process that the fork server of a gang, which ran to its end, comes from."""
    with RankServer(folder / "server.log", (TARGETS,), door) as server:
        result = server.run(f"{TARGETS}:grandparent", {}, 1, folder / "gang", 20.0)
    assert result.ended is Ending.FINISHED
    assert result.reports[0] is not None
    return int(result.reports[0]["pid"])


def test_a_rank_is_forked_from_the_warm_server(door: Path, tmp_path: Path) -> None:
    process = started(door)
    assert server_of(tmp_path, door) == process.pid
    assert server_of(tmp_path, door) == process.pid
    wait_for(lambda: not process.children())


def test_without_a_warm_server_one_is_started(door: Path, tmp_path: Path) -> None:
    assert server_of(tmp_path, door) == os.getpid()


def test_a_killed_server_leaves_a_door_that_harms_nobody(door: Path, tmp_path: Path) -> None:
    process = started(door)
    process.kill()
    wait_for(lambda: not serving(door))
    assert door.exists()
    assert server_of(tmp_path, door) == os.getpid()
    again = started_anew(door, door.stat().st_mtime_ns)
    assert server_of(tmp_path, door) == again.pid


def started_anew(door: Path, before: int) -> psutil.Process:
    warm.start(door, 60.0, (TARGETS,))
    wait_for(lambda: door.stat().st_mtime_ns != before)
    return serving(door)[0]


def test_a_door_that_is_no_socket_is_as_good_as_none(door: Path, tmp_path: Path) -> None:
    door.write_text("no socket")
    assert server_of(tmp_path, door) == os.getpid()


def test_a_server_that_does_not_answer_is_not_waited_for(door: Path, tmp_path: Path) -> None:
    process = started(door)
    process.suspend()
    assert server_of(tmp_path, door) == os.getpid()


def test_the_warm_server_killed_under_a_gang_is_told_and_its_ranks_die(
    door: Path, tmp_path: Path
) -> None:
    process = started(door)

    def kill_once_it_has_ranks() -> None:
        wait_for(lambda: ranks_of(process))
        process.kill()

    with (
        RankServer(tmp_path / "server.log", (TARGETS,), door) as server,
        ThreadPoolExecutor() as by,
    ):
        kill = by.submit(kill_once_it_has_ranks)
        result = server.run(f"{TARGETS}:sleep", {"seconds": 60}, 2, tmp_path / "gang", 20.0)
        kill.result()
        assert result.ended is Ending.SERVER_DIED
        wait_for(lambda: not serving(door))
        again = server.run(f"{TARGETS}:echo", {}, 1, tmp_path / "gang", 20.0)
        assert again.ended is Ending.FINISHED


def ranks_of(process: psutil.Process) -> list[psutil.Process]:
    return [rank for fork in process.children() for rank in fork.children()]


ASKING = """
import sys
from pathlib import Path
from runner.execute.gang import RankServer
door, folder = map(Path, sys.argv[1:3])
seconds = float(sys.argv[3])
with RankServer(folder / "log", (), door) as server:
    result = server.run("targets:sleep", {"seconds": seconds}, 1, folder / "gang", 60.0)
    print(result.ended, flush=True)
"""


def asking(door: Path, folder: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process, with a gang of one rank that sleeps."""
    return subprocess.Popen(
        [sys.executable, "-c", ASKING, door, folder, str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_gangs_run_at_once(door: Path, tmp_path: Path) -> None:
    process = started(door)
    both = [asking(door, tmp_path / str(index), 2) for index in range(2)]
    wait_for(lambda: len(ranks_of(process)) == 2)
    assert [asked.communicate()[0].strip() for asked in both] == ["finished", "finished"]


def test_whoever_is_killed_while_asking_takes_the_ranks_along(door: Path, tmp_path: Path) -> None:
    process = started(door)
    killed = asking(door, tmp_path, 60)
    wait_for(lambda: ranks_of(process))
    ranks = ranks_of(process)
    killed.kill()
    killed.communicate()
    wait_for(lambda: not any(rank.is_running() for rank in ranks))
    wait_for(lambda: not process.children())


def test_it_goes_away_when_idle_and_takes_its_door_along(door: Path) -> None:
    process = started(door, idle_s=0.5)
    wait_for(lambda: not door.exists())
    process.wait(10)


def test_it_stays_while_somebody_is_connected(door: Path) -> None:
    process = started(door, idle_s=0.3)
    link = attached(door)
    assert link is not None
    time.sleep(1)
    assert process.is_running()
    link.end()
    process.wait(10)


def test_a_second_server_for_one_door_ends_at_once(door: Path) -> None:
    process = started(door)
    warm.start(door, 60.0, (TARGETS,))
    wait_for(lambda: serving(door) == [process])
    assert attached(door) is not None
    process.send_signal(signal.SIGTERM)
    process.wait(10)
