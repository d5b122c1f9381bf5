"""What --cluster and a cluster.toml ask of a node, and what is wrong with them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runner.contract.errors import UsageError
from runner.execute.cluster.node import run_on_node, with_setup
from runner.execute.cluster.placement import Placement, placement_of


def test_options_come_after_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('partition = "gpu"\ngpus = 2\nmemory = 7.5\nsetup = ["module load cuda"]\n')
    found = placement_of([str(file), "partition=debug", "time_limit=30"])
    assert found == Placement(
        partition="debug", gpus=2, memory=7.5, time_limit=30, setup=("module load cuda",)
    )
    assert placement_of([]) == Placement()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("colour=red", "unknown key colour; known: partition"),
        ("gpus=two", "gpus must be of type int"),
        ("gpus=-1", "must not be negative"),
        ("nowhere.toml", "No such file.*name a TOML file, or KEY=VALUE"),
    ],
)
def test_a_word_that_means_nothing_is_named(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"--cluster {word}.*{said}"):
        placement_of([word])


@pytest.mark.parametrize(
    ("text", "said"), [("colour = 1", "unknown key colour"), ("gpus", "not TOML")]
)
def test_a_file_that_means_nothing_is_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=f"{file}.*{said}"):
        placement_of([str(file)])


def test_setup_lines_come_before_the_program_and_its_end_is_kept(tmp_path: Path) -> None:
    program = with_setup(["bash", "-c", 'echo "$COLOUR"; exit 7'], ["export COLOUR=red"])
    log, ended = tmp_path / "log", tmp_path / "ended"
    run_on_node(program, "", str(log), str(ended))
    assert (log.read_text(), ended.read_text()) == ("red\n", "7")
    assert with_setup(["true"], []) == ["true"]
    assert subprocess.run(with_setup(["true"], ["false"])).returncode == 0
