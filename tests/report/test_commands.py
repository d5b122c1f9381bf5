"""The commands that report, score, compare and tell; what they do with bad input."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import typer
from made_runs import MadeRun, compared
from typer.testing import CliRunner, Result

from runner.cli.app import app
from runner.cli.run_command import _write_report
from runner.contract.vocabulary import Verdict
from runner.record.folder import open_run
from runner.record.manifest import Command

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "notebooks" / "example-run"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return compared(tmp_path).read().path


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example run names its categories as they lie in the repository."""
    monkeypatch.chdir(REPOSITORY)


def test_report_shows_strategies_instances_ranks_and_causes(made: Path) -> None:
    text = call("report", made).stdout

    for title in ("Strategies", "Instances", "Balance of the ranks", "What was not decided"):
        assert title in text


@pytest.mark.slow
def test_report_writes_a_page_and_says_where(made: Path, tmp_path: Path) -> None:
    result = call("report", made, "--out", tmp_path / "out")

    assert result.stdout.endswith(f"Report: {tmp_path}/out/report.html\n")
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("command", ["report", "show"])
def test_commands_say_what_each_strategy_bought_and_cost_after_the_tables(
    command: str, made: Path
) -> None:
    *_, last = [
        line for line in call(command, made).stdout.splitlines() if line.startswith("fsdp: ")
    ]

    assert last.startswith("fsdp: 0.12× of baseline's peak memory per rank")


def test_report_puts_several_runs_together(tmp_path: Path) -> None:
    for ranks in (2, 4):
        run = MadeRun(tmp_path, f"p{ranks}")
        run.add("baseline", 1, Verdict.UNSAT, 6.0, (100,))
        run.add("fsdp", 1, Verdict.UNSAT, 6.0, (50,) * ranks)
        run.read()
    text = call("report", "p2", "p4", "--results", tmp_path).stdout

    assert "fsdp P=2" in text
    assert "fsdp P=4" in text


def test_report_leaves_out_what_was_not_chosen(made: Path) -> None:
    text = call("report", made, "--filter", "*_p4").stdout

    assert " p4 " in text
    assert " p1 " not in text


def test_report_names_the_contradiction_first(tmp_path: Path) -> None:
    run = compared(tmp_path)
    run.add("lirpa", 2, Verdict.UNSAT, 1.0)
    text = call("report", run.read().path).stdout

    assert "CONTRADICTION: digits onnx/net.onnx vnnlib/p2.vnnlib: baseline sat, lirpa unsat" in text


@pytest.mark.parametrize("command", ["report", "show", "score"])
def test_a_folder_that_is_no_run_is_refused(command: str, tmp_path: Path) -> None:
    result = call(command, tmp_path / "nothing", "--results", tmp_path)

    assert result.exit_code == 2
    assert "is no run folder" in result.stderr


@pytest.mark.parametrize("command", ["report", "show", "score"])
def test_a_run_of_a_newer_schema_is_refused(command: str, made: Path) -> None:
    manifest = json.loads((made / "run.json").read_text())
    (made / "run.json").write_text(json.dumps(manifest | {"schema": 99, "future": 1}))
    result = call(command, made)

    assert result.exit_code == 2
    assert "schema version 99" in result.stderr


def test_report_shows_the_runs_that_can_be_read_and_names_the_others(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newer = compared(tmp_path / "newer").read().path
    manifest = json.loads((newer / "run.json").read_text())
    (newer / "run.json").write_text(json.dumps(manifest | {"schema": 99}))
    result = call("report", made, newer, "nothing")

    assert result.exit_code == 0
    assert "Strategies" in result.stdout
    assert f"left out: {newer}/run.json: schema version 99" in caplog.text
    assert "left out: nothing is no run folder" in caplog.text


@pytest.mark.slow
def test_a_run_that_is_named_twice_counts_once(made: Path, tmp_path: Path) -> None:
    once, twice = (call("report", *names, "--results", tmp_path) for names in
                   ((made,), (made, "made", f"{made}/../made")))  # fmt: skip

    assert once.stdout == twice.stdout


@pytest.mark.parametrize("command", ["report", "show"])
def test_a_table_that_is_no_text_is_refused_by_its_line(command: str, made: Path) -> None:
    lines = (made / "outcomes.csv").read_bytes().split(b"\n")
    lines[3] = b"\xff\xfe" + lines[3]
    (made / "outcomes.csv").write_bytes(b"\n".join(lines))
    result = call(command, made)

    assert result.exit_code == 2
    assert "outcomes.csv:4: not UTF-8" in result.stderr


@pytest.mark.parametrize("command", ["report", "show", "score"])
def test_an_empty_run_is_refused(command: str, tmp_path: Path) -> None:
    with open_run(tmp_path, Command(("/digits",), ("baseline",), 2), 1) as folder:
        pass
    result = call(command, folder.path)

    assert result.exit_code == 2
    assert "no outcome was recorded yet" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("at_home")
def test_score_replays_the_counterexamples_of_a_run(tmp_path: Path) -> None:
    result = call("score", EXAMPLE, "--out", tmp_path)
    rows = (tmp_path / "answers.csv").read_text().splitlines()

    assert result.exit_code == 0
    assert sum(",sat," in row and ",valid,sat,10," in row for row in rows) == 5 * 5
    assert "Penalties" not in result.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("at_home")
def test_score_sets_another_tool_against_a_run(tmp_path: Path) -> None:
    network = "benchmarks/digits_mlp/onnx/mlp_2x64.onnx"
    wrong = f"digits_mlp,{network},benchmarks/digits_mlp/vnnlib/image_0_radius_0.15.vnnlib"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.csv").write_text(f"{wrong},0.1,unsat,1.0\n")
    text = call("score", EXAMPLE, tmp_path / "other").stdout

    assert "example-run/baseline" in text
    assert "unsat, but there is a valid counterexample" in text
    assert "-150" in text


@pytest.mark.slow
@pytest.mark.usefixtures("at_home")
def test_score_without_arguments_is_about_the_newest_run() -> None:
    assert "baseline" in call("score", "--results", EXAMPLE.parent).stdout


def published(folder: Path, rows: str) -> Path:
    """A tool's results.csv as a competition publishes it."""
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text(rows)
    return folder


def test_score_takes_the_strategies_that_have_answered_so_far(made: Path) -> None:
    (made / "fsdp" / "digits").mkdir(parents=True)
    published(made / "baseline" / "digits", "digits,onnx/n.onnx,vnnlib/p.vnnlib,0.1,unsat,1.0\n")
    result = call("score", made)

    assert result.exit_code == 0
    assert "baseline" in result.stdout
    assert "fsdp" not in result.stdout


def test_score_keeps_two_tools_of_one_name_apart(tmp_path: Path) -> None:
    row = "digits,onnx/n.onnx,vnnlib/p.vnnlib,0.1,{},1.0\n"
    old, new = (
        published(tmp_path / year / "crown", row.format(verdict))
        for year, verdict in (("2025", "unsat"), ("2026", "unknown"))
    )
    result = call("score", old, new, "--out", tmp_path / "out")
    points = [
        line.split(",")[3:9:5] for line in (tmp_path / "out" / "answers.csv").open().readlines()[1:]
    ]

    assert result.exit_code == 0
    assert points == [[f"{old}: crown", "10"], [f"{new}: crown", "0"]]


@pytest.mark.parametrize(
    "rows", ["", "category,network,property,prepare_time,result\na,n.onnx,p.vnnlib,0.1,unsat\n"]
)
def test_score_refuses_results_without_a_row_that_can_be_used(rows: str, tmp_path: Path) -> None:
    tool = published(tmp_path / "tool", rows)
    result = call("score", tool)

    assert result.exit_code == 2
    assert f"{tool}: no row of a results.csv that can be scored" in result.stderr
    assert ("5 columns where 6 are needed" in result.stdout) is bool(rows)


def test_score_lists_the_first_penalties_and_says_how_many_there_are(tmp_path: Path) -> None:
    rows = [f"digits,onnx/n.onnx,vnnlib/p{n}.vnnlib,0.1,sat,1.0\n" for n in range(30)]
    text = call("score", published(tmp_path / "tool", "".join(rows)), "--out", tmp_path).stdout

    assert "… and 10 more" in text
    assert len((tmp_path / "penalties.csv").read_text().splitlines()) == 31


@pytest.mark.slow
def test_compare_ends_with_1_when_something_became_worse(tmp_path: Path) -> None:
    for name, peak in (("old", 1000), ("new", 1500)):
        run = MadeRun(tmp_path, name)
        run.add("baseline", 1, Verdict.UNSAT, 1.0, (peak,))
        run.read()
    arguments = ("compare", "old", "new", "--results", tmp_path)

    assert call(*arguments).exit_code == 0
    assert call(*arguments, "--fail-on", "verdict,time:1.3").exit_code == 0
    worse = call(*arguments, "--fail-on", "memory:1.2")
    assert worse.exit_code == 1
    assert "worse: memory: 1 instances beyond 1.2×" in worse.stderr
    assert "1.50×" in worse.stdout


@pytest.mark.slow
def test_compare_fails_when_the_new_run_is_not_finished(tmp_path: Path) -> None:
    old = compared(tmp_path / "old").read().path
    new = compared(tmp_path / "new").read().path
    lines = (new / "outcomes.csv").read_text().splitlines(keepends=True)
    (new / "outcomes.csv").write_text("".join(lines[:-2]) + lines[-2][:20])

    assert call("compare", old, new).exit_code == 0
    failed = call("compare", old, new, "--fail-on", "verdict")
    assert failed.exit_code == 1
    assert "worse: verdict: the new run has 2 outcomes yet to record" in failed.stderr
    assert "outcomes.csv:8: left out: the row is not complete" in failed.stdout


def test_compare_names_a_run_without_outcomes(made: Path, tmp_path: Path) -> None:
    with open_run(tmp_path, Command(("/digits",), ("baseline",), 2), 1) as folder:
        pass
    result = call("compare", made, folder.path)

    assert result.exit_code == 2
    assert f"{folder.path}: no outcome was recorded yet" in result.stderr


def test_compare_refuses_limits_that_mean_nothing(made: Path) -> None:
    result = call("compare", made, made, "--fail-on", "speed")

    assert result.exit_code == 2
    assert "--fail-on speed" in result.stderr


@pytest.mark.usefixtures("at_home")
def test_show_tells_one_instance_in_full() -> None:
    text = call("show", EXAMPLE, "mlp_2x64_image_0_radius_0.15").stdout

    for words in ("64 inputs in 1 box", "Time of each rank", "Peak memory", "ONNX Runtime's"):
        assert words in text


def test_show_of_many_instances_is_a_table(made: Path) -> None:
    text = call("show", made, "*_p*").stdout

    assert "Time of each rank" not in text
    assert "fsdp digits onnx/net.onnx vnnlib/p4.vnnlib: error rank_died: rank 1 died" in text


def test_a_report_that_cannot_be_written_ends_a_run_with_exit_code_5(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evidence = compared(tmp_path).evidence()
    (tmp_path / "run").write_text("a file where the folder should be")
    with caplog.at_level(logging.ERROR), pytest.raises(typer.Exit) as ended:
        _write_report(evidence, tmp_path / "run")

    assert ended.value.exit_code == 5
    assert f"to make its report: vnncomp-runner report {tmp_path}/run --out" in caplog.text
