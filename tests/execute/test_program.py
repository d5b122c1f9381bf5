"""Programs of somebody else's: what is kept of them, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.execute.link import environment
from runner.execute.program import Program, ProgramEnd, ProgramResult, run_program

pytestmark = pytest.mark.alone

Start = Callable[..., ProgramResult]
MEGA = 2**20
# A process that no parent, group or session leads to any more.
DAEMON = """
import os, pathlib, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        pathlib.Path("daemon").write_text(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
while not pathlib.Path("daemon").exists() or not pathlib.Path("daemon").read_text():
    time.sleep(0.01)
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


def program(folder: Path, code: str, **options: Any) -> Program:
    """Python code, run in a folder of its own beside its output."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    defaults: dict[str, Any] = {
        "arguments": (sys.executable, "-c", code),
        "environment": dict(os.environ),
        "folder": str(work),
        "output": str(folder / "out"),
        "errors": str(folder / "err"),
        "timeout_s": 30.0,
    }
    return Program(**{**defaults, **options})


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return lambda code, **options: run_program(program(tmp_path, code, **options))


def is_alive(pid_file: Path) -> bool:
    pid = int(pid_file.read_text())
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until(done: Callable[[], bool], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_what_it_wrote_and_its_exit_code_are_kept(start: Start, tmp_path: Path) -> None:
    code = (
        "import os, sys; print(os.getcwd()); print(os.environ['ASKED'], file=sys.stderr); exit(3)"
    )
    result = start(code, environment={**os.environ, "ASKED": "yes"})

    assert (result.ended, result.exit_code) == (ProgramEnd.FINISHED, 3)
    assert (tmp_path / "out").read_text() == f"{tmp_path / 'work'}\n"
    assert (tmp_path / "err").read_text() == "yes\n"
    assert result.cpu_s is not None
    assert result.cpu_s > 0


def test_an_environment_of_any_size_arrives(start: Start, tmp_path: Path) -> None:
    large = {f"V{number}": "x" * 50_000 for number in range(4)}
    code = "import os; print(sum(len(os.environ[f'V{n}']) for n in range(4)))"
    assert start(code, environment={**os.environ, **large}).exit_code == 0
    assert (tmp_path / "out").read_text() == "200000\n"


def test_a_signal_that_ends_it_is_told(start: Start) -> None:
    result = start("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (result.ended, result.exit_code) == (ProgramEnd.FINISHED, -signal.SIGSEGV)


def test_a_program_that_cannot_start_says_so_as_a_shell_does(start: Start, tmp_path: Path) -> None:
    result = start("", arguments=("/no/such/program",))

    assert result.exit_code == 127
    assert "/no/such/program" in (tmp_path / "err").read_text()


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(600)",
        DEAF + "import time; time.sleep(600)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    ],
    ids=["slow", "deaf", "suspended"],
)
def test_a_program_that_overruns_is_ended(start: Start, code: str) -> None:
    result = start(code, timeout_s=0.7)

    assert (result.ended, result.exit_code) == (ProgramEnd.KILLED_AT_DEADLINE, None)
    assert result.run_time_s >= 0.7


def test_a_process_that_left_its_parent_and_session_is_ended_too(
    start: Start, tmp_path: Path
) -> None:
    result = start(DAEMON + "time.sleep(600)", timeout_s=2.0)

    assert result.ended is ProgramEnd.KILLED_AT_DEADLINE
    assert not is_alive(tmp_path / "work" / "daemon")


@pytest.mark.parametrize("prefix", ["", DEAF], ids=["polite", "deaf"])
def test_what_outlives_it_is_ended_and_named(start: Start, tmp_path: Path, prefix: str) -> None:
    result = start(prefix + DAEMON)

    assert (result.ended, result.exit_code) == (ProgramEnd.FINISHED, 0)
    assert [name.startswith("python") for name in result.left_behind] == [True]
    assert not is_alive(tmp_path / "work" / "daemon")


def test_a_helper_that_ends_by_itself_is_not_held_against_it(start: Start) -> None:
    result = start("import subprocess; subprocess.Popen(['sleep', '0.1'])")
    assert result.left_behind == ()


def test_its_memory_is_that_of_all_its_processes(start: Start) -> None:
    hold = f"x = bytearray({64 * MEGA}); import time; time.sleep(1.5)"
    code = f"""
import subprocess, sys
others = [subprocess.Popen([sys.executable, "-c", {hold!r}], start_new_session=True)
          for _ in range(2)]
for other in others: other.wait()
"""
    result = start(code)

    assert result.peak_rss_bytes is not None
    assert 2 * 64 * MEGA < result.peak_rss_bytes < 8 * 64 * MEGA


def test_memory_beyond_the_limit_ends_it(start: Start) -> None:
    code = f"x = bytearray({256 * MEGA}); import time; time.sleep(600)"
    result = start(code, memory_limit_bytes=128 * MEGA)
    assert result.ended is ProgramEnd.OUT_OF_MEMORY


def test_what_it_never_stops_printing_does_not_fill_the_disk(start: Start, tmp_path: Path) -> None:
    result = start("", arguments=("yes",), timeout_s=1.0, output_limit_bytes=MEGA)

    assert result.ended is ProgramEnd.KILLED_AT_DEADLINE
    assert (tmp_path / "out").stat().st_size == MEGA


def test_when_the_harness_is_killed_nothing_is_left(tmp_path: Path) -> None:
    wanted = program(tmp_path, DAEMON + "time.sleep(600)")
    code = f"from runner.execute.program import *\nimport json, sys\nrun_program({wanted!r})\n"
    harness = subprocess.Popen([sys.executable, "-c", code], env=environment())
    pid_file = tmp_path / "work" / "daemon"
    wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
    assert is_alive(pid_file)
    harness.kill()
    harness.wait()

    wait_until(lambda: not is_alive(pid_file))


def test_when_its_supervisor_is_killed_it_ends_and_that_is_told(
    start: Start, tmp_path: Path
) -> None:
    code = """
import os, pathlib, signal, time
pathlib.Path("pid").write_text(str(os.getpid()))
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(600)
"""
    result = start(code)

    assert result.ended is ProgramEnd.SUPERVISOR_DIED
    wait_until(lambda: not is_alive(tmp_path / "work" / "pid"))
