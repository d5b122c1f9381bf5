"""Who is to blame where several ranks of a gang end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runner.contract.shell import REPORTED_ERROR, report_path
from runner.execute.channel import Message
from runner.execute.launch import Launch
from runner.execute.watch import Ending, Watch


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """Of a gang of two, under way."""
    watch = Watch(Launch(gang=1, ranks=2, target="", payload={}, folder=str(tmp_path)))
    watch.note({"event": "started", "gang": 1, "pids": [0, 0]})
    return watch


def gone(rank: int, code: int | None = None, signal: int | None = None) -> Message:
    return {"event": "exited", "gang": 1, "rank": rank, "code": code, "signal": signal}


def test_a_rank_that_was_killed_is_blamed_even_if_its_peer_was_seen_to_fail_first(
    watch: Watch, tmp_path: Path
) -> None:
    report_path(tmp_path, 0).write_text("{}")
    watch.note(gone(0, code=REPORTED_ERROR))
    assert (watch.ended, watch.result(0.0).dead_rank) == (Ending.FINISHED, 0)
    watch.note(gone(1, signal=9))
    assert (watch.ended, watch.result(0.0).dead_rank) == (Ending.RANK_DIED, 1)
    assert watch.result(0.0).how == "signal 9 (SIGKILL)"


def test_a_rank_that_is_ended_for_its_peer_is_not_blamed(watch: Watch, tmp_path: Path) -> None:
    report_path(tmp_path, 0).write_text("{}")
    watch.note(gone(0, code=REPORTED_ERROR))
    watch.settle()
    watch.note(gone(1, signal=9))
    assert (watch.ended, watch.result(0.0).dead_rank) == (Ending.FINISHED, 0)


def test_a_process_on_its_way_out_is_seen_before_it_is_reaped(tmp_path: Path) -> None:
    watch = Watch(Launch(gang=1, ranks=1, target="", payload={}, folder=str(tmp_path)))
    with subprocess.Popen(["sleep", "60"]) as process:
        watch.note({"event": "started", "gang": 1, "pids": [process.pid]})
        assert not watch.dying
        process.kill()
        # Gone, and not yet reaped.
        while not Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].startswith(" Z"):
            pass
        assert watch.dying
