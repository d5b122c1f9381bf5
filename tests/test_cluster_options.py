"""Options of a run over a cluster that make no sense are said before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_server import make_category
from typer.testing import CliRunner

from runner.cli.app import app
from runner.record.manifest import Command


@pytest.fixture
def category(tmp_path: Path) -> Path:
    return make_category(tmp_path / "digits", 3)


def refused(category: Path, *options: str) -> str:
    words = ["run", str(category), "--results", str(category.parent / "r"), *options]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert not list((category.parent / "r").glob("*/shards/*.csv"))
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--shards", "3"), "--shards and --cluster need --on slurm, --on ray or --on local"),
        (("--cluster", "gpus=1"), "--shards and --cluster need --on"),
        (("--on", "local", "--cluster", "colour=1"), "unknown key colour; known: partition"),
        (("--on", "local", "--machine", "a=ssh a"), "give one of them"),
        (("--machine", "=ssh"), "ADDRESS=COMMAND is expected"),
    ],
)
def test_options_that_clash_are_named(options: tuple[str, ...], said: str, category: Path) -> None:
    assert said in refused(category, *options)


@pytest.mark.parametrize(
    ("on", "module", "said"),
    [
        ("slurm", "submitit", '--on slurm needs submitit: pip install "vnncomp-runner[slurm]"'),
        ("local", "submitit", '--on local needs submitit: pip install "vnncomp-runner[slurm]"'),
        ("ray", "ray", '--on ray needs Ray: pip install "vnncomp-runner[ray]"'),
    ],
)
def test_what_is_not_installed_is_named_with_the_remedy(
    on: str, module: str, said: str, category: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert said in refused(category, "--on", on)


def test_the_command_that_goes_on_has_what_shards_ask_for() -> None:
    command = Command(
        ("/digits",), ("null",), 1, shards=2, placement=("partition=gpu",), machines=("a=ssh a",)
    )
    line = command.shell(Path("results"), "night")
    assert "--shards 2" in line
    assert "--cluster partition=gpu" in line
    assert "--machine 'a=ssh a'" in line
    assert command == Command(("/digits",), ("null",), 1, shards=2, machines=("a=ssh a",))
