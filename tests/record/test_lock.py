"""A run folder belongs to one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.contract.errors import UsageError
from runner.record.lock import exclusive

_HOLD = """
import sys, time
from pathlib import Path
from runner.record.lock import exclusive
with exclusive(Path(sys.argv[1])):
    sys.stdout.write("held")
    sys.stdout.flush()
    time.sleep(60)
"""


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / "run"),
        pytest.raises(UsageError, match=rf"in use .*{os.getpid()}.*wait") as refused,
        exclusive(tmp_path / "run"),
    ):
        pass
    assert str(tmp_path / "run") in str(refused.value)


def test_the_folder_is_free_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with exclusive(tmp_path):
            pass


def test_other_folders_are_free(tmp_path: Path) -> None:
    with exclusive(tmp_path / "one"), exclusive(tmp_path / "other"):
        pass


def test_a_killed_process_frees_its_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.read(4) == b"held"
        with pytest.raises(UsageError, match=str(holder.pid)), exclusive(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with exclusive(tmp_path):
        pass
