"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, answer, make_category
from typer.testing import CliRunner, Result

from runner.cli import job_command, run_command
from runner.cli.app import app
from runner.execute.executor import GangResult
from runner.record.lock import exclusive

REPOSITORY = Path(__file__).resolve().parent.parent
WRITE_REPORT = run_command._write_report


class FakeRankServer(FakeServer):
    """Takes the place of the rank server in the command."""

    verify: Any = staticmethod(answer)

    def __init__(self, log: Path) -> None:
        super().__init__(type(self).verify)

    def __enter__(self) -> FakeRankServer:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def category(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three instances; commands run in `tmp_path` and with a stand-in for the rank server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_command, "RankServer", FakeRankServer)
    # A report takes a second or two.
    monkeypatch.setattr(run_command, "_write_report", lambda evidence, run_folder: "none")
    return make_category(tmp_path / "digits", 3)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def only_run(results: Path) -> Path:
    (run,) = results.iterdir()
    return run


def test_run_reports_every_outcome_a_summary_and_where_the_files_are(category: Path) -> None:
    result = call("run", category)

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("[1/9] baseline digits net0.onnx prop0.vnnlib: ")
    assert lines[8].startswith("[9/9] fsdp digits net2.onnx prop2.vnnlib: ")
    assert "PAR-2" in result.stdout
    assert f"Files: {only_run(Path('results'))}" in result.stdout
    assert "\x1b" not in result.stdout, "a log has no colours and no bar"


@pytest.mark.slow
def test_run_ends_by_naming_its_report(category: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_command, "_write_report", WRITE_REPORT)
    result = call("run", category)
    page = only_run(Path("results")) / "report" / "report.html"

    assert result.stdout.splitlines()[-1] == f"Report: {page}"
    assert page.is_file()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a run and not for its report. Needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_under_the_report_is_exit_code_3_and_the_report_can_be_made_later(
    category: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(run_command, "_write_report", WRITE_REPORT)
    result = call("run", category, "--results", small_disk, "--run", "full")

    assert result.exit_code == 3
    assert "No space left" in caplog.text
    assert "resume" not in caplog.text, "nothing is left to be run"
    assert len((small_disk / "full" / "outcomes.csv").read_text().splitlines()) == 10
    assert json.loads((small_disk / "full" / "run.json").read_text())["status"] == "finished"
    command = caplog.text.split("vnncomp-runner ")[1].split()
    assert command == ["report", f"{small_disk}/full", "--out", f"{small_disk}/full/report"]
    assert call(*command).exit_code == 3
    assert call(*command[:3], "elsewhere").exit_code == 0
    assert Path("elsewhere/report.html").is_file()


@pytest.mark.parametrize(
    ("error", "exit_code", "traceback"),
    [
        (OSError(28, "No space left on device"), 3, False),
        (PermissionError(13, "Permission denied"), 5, False),
        (ZeroDivisionError(), 5, True),
    ],
    ids=repr,
)
def test_a_finished_run_without_its_report_says_so_and_how_to_make_it(
    category: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    exit_code: int,
    traceback: bool,
) -> None:
    def broken(evidence: object, folder: Path) -> Path:
        raise error

    monkeypatch.setattr(run_command, "_write_report", WRITE_REPORT)
    monkeypatch.setattr("runner.report.report_files.write_report", broken)
    result = call("run", category)

    assert result.exit_code == exit_code
    assert f"vnncomp-runner report {only_run(Path('results'))} --out" in caplog.text
    assert ("Traceback" in caplog.text) is traceback, "only a defect has one"


@pytest.mark.parametrize("options", [("--seed", 7), ("--fixed-workload", 3, "--batch", 64)])
def test_an_interrupted_run_says_how_to_go_on_and_does(
    category: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...]
) -> None:
    calls = iter(range(100))

    def interrupted(payload: dict[str, Any], ranks: int) -> GangResult:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return answer(payload, ranks)

    monkeypatch.setattr(FakeRankServer, "verify", staticmethod(interrupted))
    first = call("run", category, *options)
    command = first.stderr.strip().removeprefix("Interrupted. To resume: ").split()
    second = call(*command[1:])

    assert first.exit_code == 130
    assert second.exit_code == 0
    assert "2 of 9 are done" in second.stdout
    assert len((only_run(Path("results")) / "outcomes.csv").read_text().splitlines()) == 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/no/such/folder"], "/no/such/folder"),
        (["digits", "--strategies", "fdsp"], "fdsp"),
        (["digits", "--filter", "x*"], "x*"),
        (["digits", "--ranks", "0"], "ranks"),
        (["digits", "--method", "magic"], "magic"),
        (["digits", "--run", "a/b"], "a/b"),
        (["digits", "--fixed-workload", "3"], "add --batch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_exit_code_2_with_a_reason(
    category: Path, arguments: list[str], words: str
) -> None:
    result = call("run", *arguments)

    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_full_disk_is_exit_code_3(category: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(payload: dict[str, Any], ranks: int) -> GangResult:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FakeRankServer, "verify", staticmethod(full))
    result = call("run", category)

    assert result.exit_code == 3
    assert "No space left" in result.stderr
    assert "vnncomp-runner run" in result.stderr


def test_a_folder_in_use_is_exit_code_4(category: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("run", category, "--run", "nightly")
    with exclusive(Path("results/nightly")):
        result = call("run", category, "--run", "nightly")

    assert result.exit_code == 4
    assert "nightly" in result.stderr


def test_list_names_instances_and_the_rows_that_are_none(category: Path) -> None:
    with (category / "instances.csv").open("a") as file:
        file.write("net0.onnx\n")
    result = call("list", category, "--limit", 4)

    assert result.exit_code == 0
    assert "prop2.vnnlib" in result.stdout
    assert "instances.csv:4" in result.stdout
    assert "3 instances, 1 rows that cannot be run" in result.stdout


@pytest.fixture
def without_files(category: Path) -> Path:
    """A second category, whose networks are still to be downloaded."""
    folder = category.parent / "large"
    folder.mkdir()
    (folder / "instances.csv").write_text("a.onnx,a.vnnlib,60\nb.onnx,b.vnnlib,60\n")
    return folder


def test_list_names_the_categories_that_are_left_out(category: Path, without_files: Path) -> None:
    result = call("list", without_files, category)

    assert result.exit_code == 0
    assert result.stdout.count(f"left out: {without_files}/instances.csv: none of the files") == 1
    assert result.stdout.endswith("3 instances, 1 categories left out\n")


def test_run_says_before_and_after_which_categories_are_left_out_and_runs_the_rest(
    category: Path, without_files: Path
) -> None:
    result = call("run", category, without_files)

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"left out: {without_files}/instances.csv: none of the files")
    assert [line for line in lines if line.startswith("left out")] == [lines[0], lines[-2]]
    assert len((only_run(Path("results")) / "outcomes.csv").read_text().splitlines()) == 10


@pytest.mark.parametrize("command", ["list", "run"])
def test_with_nothing_left_to_run_the_command_is_wrong_usage(
    without_files: Path, command: str
) -> None:
    result = call(command, without_files)

    assert result.exit_code == 2
    assert "none of the files it names exists; download them" in result.stderr


@pytest.fixture
def one_instance(category: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Network and property for `job`, which prepares in `job/prepare`."""
    monkeypatch.setattr(job_command, "RankServer", FakeRankServer)
    Path("job", "prepare").mkdir(parents=True)
    return category / "net0.onnx", category / "prop0.vnnlib"


@pytest.mark.parametrize(("strategy", "ranks"), [("sp", 3), ("baseline", 1)])
def test_a_job_is_for_the_ranks_that_its_strategy_has(
    one_instance: tuple[Path, Path], strategy: str, ranks: int
) -> None:
    result = call("job", *one_instance, "job", "--strategy", strategy, "--ranks", 3)

    assert result.exit_code == 0
    assert f"ready for {ranks} rank(s)" in result.stdout
    assert json.loads(Path("job/job.json").read_text())["ranks"] == ranks


@pytest.mark.parametrize("strategy", ["auto", "null"])
def test_a_job_is_for_a_strategy_that_answers_on_any_machine(
    one_instance: tuple[Path, Path], strategy: str
) -> None:
    result = call("job", *one_instance, "job", "--strategy", strategy)

    assert result.exit_code == 2
    assert f"strategy {strategy} " in result.stderr
    assert not Path("job/job.json").exists()


def test_what_ranks_said_of_an_earlier_job_is_gone_when_another_is_made(
    one_instance: tuple[Path, Path],
) -> None:
    for name in ("rank0.json", "rank3.json", "counterexample.gz"):
        Path("job", name).touch()
    call("job", *one_instance, "job")

    assert [path.name for path in Path("job").glob("*.json")] == ["job.json"]
    assert not Path("job/counterexample.gz").exists()


@pytest.mark.slow
def test_show_finds_a_run_by_name_and_chooses_instances(category: Path) -> None:
    call("run", category, "--run", "nightly")
    whole, part = call("show", "nightly"), call("show", "results/nightly", "net1*")

    assert "net0" in whole.stdout
    assert "net0" not in part.stdout
    assert "net1" in part.stdout
    assert "speed / baseline" in part.stdout


@pytest.mark.slow
def test_show_tells_what_went_wrong(category: Path) -> None:
    with (category / "instances.csv").open("a") as file:
        file.write("net0.onnx,prop0.vnnlib,soon\n")
    call("run", category, "--run", "nightly")
    result = call("show", "nightly")

    assert "malformed_instance" in result.stdout
    assert "instances.csv:4" in result.stdout


@pytest.mark.slow
def test_show_as_markdown_is_nothing_but_tables(category: Path) -> None:
    call("run", category, "--run", "nightly")
    whole = call("show", "nightly", "--markdown").stdout
    parts = call("show", "nightly", "--markdown", "--by-category").stdout

    assert {line[:1] for line in whole.splitlines()} == {"|", ""}
    assert parts.startswith("### digits\n\n|")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["other"], "runs in results: nightly"), (["nightly", "x*"], "x*")],
    ids=["no such run", "no such instance"],
)
def test_show_says_what_there_is(category: Path, arguments: list[str], words: str) -> None:
    call("run", category, "--run", "nightly")
    result = call("show", *arguments)

    assert result.exit_code == 2
    assert words in result.stderr


def test_the_help_teaches_exit_codes_and_examples() -> None:
    text = call("run", "--help").stdout

    assert "vnncomp-runner run mnist_fc" in text
    assert all(f"  {code} " in text for code in (0, 2, 3, 4, 5, 130))


def test_the_commands_start_without_heavy_libraries() -> None:
    heavy = "{'torch', 'pandas', 'numpy', 'onnx', 'onnxruntime', 'vnnlib'}"
    code = f"import sys, runner.cli.app; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"
