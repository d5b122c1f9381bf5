"""The command line of runs with other verifiers, and what resumes them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from fake_tools import POINT, says, scripts, small_category, write_script
from typer.testing import CliRunner, Result

from runner.cli import run_command
from runner.cli.app import app
from runner.contract.verifier import Tool
from runner.record.folder import open_run
from runner.record.manifest import FILE_NAME, Command, read_manifest

pytestmark = pytest.mark.alone


@pytest.fixture
def category(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # A report takes a second or two.
    monkeypatch.setattr(run_command, "_write_report", lambda evidence, run_folder: "none")
    return small_category(tmp_path / "small")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("none", ["none", ""])
def test_other_verifiers_run_without_a_strategy_of_ours(category: Path, none: str) -> None:
    folder = scripts(category.parent / "tool", says(f"sat\n{POINT}"))
    done = call("run", category, "--strategies", none, "--verifier", f"mine={folder}")
    scored = call("score")

    assert done.exit_code == 0, done.output
    assert "mine small onnx/identity.onnx vnnlib/prop0.vnnlib: sat" in done.output
    assert not list(category.parent.glob("results/*/logs/server.log")), "no rank server is started"
    assert scored.exit_code == 0, scored.output
    assert "mine" in scored.output


def test_a_run_with_nobody_to_answer_is_refused(category: Path) -> None:
    refused = call("run", category, "--strategies", "none")
    assert refused.exit_code == 2
    assert "--verifier" in refused.output


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("tool", "does not exist"),
        ("tool/install_tool.sh", "has no install_tool.sh"),
        ("tool/prepare_instance.sh", "has no prepare_instance.sh"),
        ("tool/run_instance.sh", "has no run_instance.sh"),
    ],
)
def test_what_is_missing_is_told_before_there_is_a_run(
    category: Path, missing: str, words: str
) -> None:
    folder = scripts(category.parent / "tool", says("unsat"))
    (category.parent / missing).rename(category.parent / "elsewhere")
    refused = call("run", category, "--verifier", f"mine={folder}")

    assert refused.exit_code == 2
    assert f"verifier mine: {folder} {words}" in refused.output
    assert not (category.parent / "results").exists()


def test_an_installation_that_fails_is_wrong_usage(category: Path) -> None:
    folder = scripts(category.parent / "tool", says("unsat"), install="echo no room; exit 1")
    refused = call("run", category, "--verifier", f"mine={folder}")

    assert refused.exit_code == 2
    assert "failed (exit code 1)" in refused.output
    assert "\n  no room\n" in refused.output


def test_a_fixed_workload_is_nothing_that_another_verifier_does(category: Path) -> None:
    folder = scripts(category.parent / "tool", says("unsat"))
    options = ["--fixed-workload", 2, "--batch", 4, "--verifier", f"mine={folder}"]
    refused = call("run", category, "--strategies", "none", *options)

    assert refused.exit_code == 2
    assert "mine has no branch and bound" in refused.output


def test_the_command_of_a_run_resumes_it(category: Path) -> None:
    """What is printed for a killed run names other verifiers as they were named."""
    here = category.parent
    scripts(here / "tool", says("unsat"))
    write_script(here / "solver", "echo 1.0")
    (here / "verifiers.toml").write_text('[solver]\ncommand = "solver"\narguments = ["a b"]\n')
    options = ["--verifier", "mine=tool", "--verifiers", "verifiers.toml", "--run", "one"]
    assert call("run", category, "--strategies", "none", *options).exit_code == 0
    manifest = read_manifest(here / "results" / "one")
    words = shlex.split(manifest.command.shell(Path("results"), "one"))[1:]
    again = call(*words)

    assert manifest.command.contenders == ("mine", "solver")
    assert manifest.command.verifiers[1].arguments == ("a b",)
    assert again.exit_code == 0, again.output
    assert "2 of 2 are done" in again.output


def test_another_verifier_makes_another_command(tmp_path: Path) -> None:
    one = Command(("/digits",), (), 2, verifiers=(Tool("mine", "/tool"),))
    two = Command(("/digits",), (), 2, verifiers=(Tool("mine", "/tool", ("--fast",)),))
    with open_run(tmp_path, one, 1, "one"):
        pass
    assert read_manifest(tmp_path / "one").command == one
    assert one != two


def test_a_run_from_before_there_were_verifiers_is_read(tmp_path: Path) -> None:
    with open_run(tmp_path, Command(("/digits",), ("baseline",), 2), 1, "one"):
        pass
    file = tmp_path / "one" / FILE_NAME
    content = json.loads(file.read_text())
    del content["command"]["verifiers"]
    file.write_text(json.dumps(content))

    assert read_manifest(tmp_path / "one").command.verifiers == ()
