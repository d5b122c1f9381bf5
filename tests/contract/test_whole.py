"""Files are whole or not there, and what a kill leaves beside them is removed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from runner.contract.whole import remove_drafts, replace_file, replaced

KILLED = """
import os, signal, sys
from pathlib import Path
from runner.contract.whole import replaced
with replaced(Path(sys.argv[1]), durable=False) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_writer(file: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)


def test_a_writer_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    replace_file(file, "before")
    with pytest.raises(FileNotFoundError), replaced(file, durable=True):
        (tmp_path / "gone").read_text()
    assert file.read_text() == "before"
    assert [*tmp_path.iterdir()] == [file]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    kill_a_writer(tmp_path / "table.csv")
    (left,) = tmp_path.iterdir()
    assert left.read_text() == "half"
    remove_drafts(tmp_path)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["host", "host.of.a.domain"])
def test_what_is_being_written_stays(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "node", lambda: name)
    with replaced(tmp_path / "table.csv", durable=False) as draft:
        draft.write_text("half")
        remove_drafts(tmp_path)
        assert draft.exists()


def test_what_another_machine_writes_stays_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_a_writer(tmp_path / "table.csv")
    (draft,) = tmp_path.iterdir()
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    remove_drafts(tmp_path)
    assert draft.exists(), "nothing is known of its processes"
    os.utime(draft, (0, 0))
    remove_drafts(tmp_path)
    assert not draft.exists()


def test_what_is_no_draft_stays(tmp_path: Path) -> None:
    names = [".hidden", "table.csv", ".run.draft", ".a.b.c.draft"]
    for name in names:
        (tmp_path / name).write_text("")
    remove_drafts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
