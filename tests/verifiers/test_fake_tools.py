"""Tools that answer well and badly, in runs of their own: what is recorded of them."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_server import FakeServer, Silent
from fake_tools import (
    OUTSIDE_POINT,
    POINT,
    PROPERTY,
    QUERY,
    SAFE_POINT,
    python,
    says,
    scripts,
    small_category,
    write_script,
)

from runner.contract.errors import UsageError
from runner.contract.verifier import Tool
from runner.contract.vocabulary import Cause, Device, Verdict
from runner.execute.link import environment
from runner.problem.replay import Validity, replay
from runner.record.folder import open_run
from runner.record.manifest import Command, Status, read_manifest
from runner.record.read import read_run
from runner.record.schema import Outcome
from runner.run import foreign
from runner.run.install import install_verifiers
from runner.run.plan import plan
from runner.run.schedule import schedule

pytestmark = pytest.mark.alone


def run(results: Path, category: Path, *tools: Path | Tool, **options: Any) -> list[Outcome]:
    """A run with no strategy of ours; gives what was recorded now."""
    named = [
        tool if isinstance(tool, Tool) else Tool(f"tool{index}", str(tool))
        for index, tool in enumerate(tools)
    ]
    command = replace(Command((str(category),), (), 2, verifiers=tuple(named)), **options)
    tasks, observer = plan(command), Silent()
    with open_run(results, command, len(tasks), "run") as folder:
        install_verifiers(tasks, folder, lambda said: None, command.device)
        schedule(tasks, command, folder, FakeServer(), observer)
    return observer.outcomes


def only(tmp_path: Path, tool: Path | Tool, **options: Any) -> Outcome:
    """What is recorded of a tool that is asked one question."""
    category = small_category(tmp_path / "small", timeout_s=options.pop("timeout_s", 30))
    (outcome,) = run(tmp_path / "results", category, tool, **options)
    return outcome


def log(tmp_path: Path, suffix: str = "rank0.log") -> str:
    (found,) = (tmp_path / "results" / "run" / "logs" / "tool0" / "small").glob(f"*.{suffix}")
    return found.read_text()


def counterexamples(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "results" / "run").glob("*/*/*.counterexample.gz"))


# --- answers


def test_unsat_is_recorded_with_its_cost(tmp_path: Path) -> None:
    outcome = only(tmp_path, scripts(tmp_path / "tool", "sleep 0.2; " + says("unsat")))

    assert (outcome.strategy, outcome.verdict, outcome.cause) == ("tool0", "unsat", "")
    assert outcome.run_time_s is not None
    assert outcome.run_time_s >= 0.2
    assert outcome.prepare_time_s is not None
    assert outcome.peak_rss_bytes is not None
    assert outcome.peak_rss_bytes > 0
    ranks = read_run(tmp_path / "results" / "run").ranks
    assert ranks[["strategy", "ranks", "rank"]].to_numpy().tolist() == [["tool0", 1, 0]]
    assert counterexamples(tmp_path) == []


@pytest.mark.parametrize(
    ("word", "verdict", "cause"),
    [
        ("unknown", Verdict.UNKNOWN, Cause.UNDECIDED),
        ("timeout", Verdict.TIMEOUT, Cause.DEADLINE),
        ("error", Verdict.ERROR, Cause.VERIFIER_FAILED),
    ],
)
def test_what_it_does_not_decide_has_a_cause(
    tmp_path: Path, word: str, verdict: Verdict, cause: Cause
) -> None:
    outcome = only(tmp_path, scripts(tmp_path / "tool", says(word)))
    assert (outcome.verdict, outcome.cause) == (verdict, cause)


def test_sat_is_recorded_with_a_counterexample_that_was_replayed(tmp_path: Path) -> None:
    outcome = only(tmp_path, scripts(tmp_path / "tool", says(f"sat\n{POINT}")))

    assert (outcome.verdict, outcome.cause, outcome.message) == (Verdict.SAT, Cause.NONE, "")
    (written,) = counterexamples(tmp_path)
    folder = tmp_path / "small"
    found = replay(folder / "onnx/identity.onnx", folder / "vnnlib/prop0.vnnlib", written)
    assert found.validity is Validity.VALID
    assert gzip.decompress(written.read_bytes()).decode().startswith("((X_0 0.75)")


def test_outputs_that_it_states_do_not_count(tmp_path: Path) -> None:
    boasted = SAFE_POINT.replace("(Y_0 0.375)", "(Y_0 0.9)")
    outcome = only(tmp_path, scripts(tmp_path / "tool", says(f"sat\n{boasted}")))
    assert (outcome.verdict, outcome.cause) == (Verdict.ERROR, Cause.INVALID_COUNTEREXAMPLE)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("sat", "sat without a counterexample"),
        ("sat\n()", "missing counterexample"),
        (f"sat\n{SAFE_POINT}", "safe output"),
        (f"sat\n{OUTSIDE_POINT}", "outside the input box, 0.5 away"),
        ("sat\n((X_0 0.75))", "wrong size"),
        ("sat\n((X_0 nan)(X_1 nan))", "outside the input box"),
        ("sat\nX is 0.75", "malformed counterexample"),
        (f"sat\n{POINT[:-20]}", "malformed counterexample"),
    ],
)
def test_sat_without_a_valid_point_is_an_error(tmp_path: Path, answer: str, words: str) -> None:
    outcome = only(tmp_path, scripts(tmp_path / "tool", says(answer)))

    assert (outcome.verdict, outcome.cause) == (Verdict.ERROR, Cause.INVALID_COUNTEREXAMPLE)
    assert words in outcome.message
    assert counterexamples(tmp_path) == []
    if claimed := answer.partition("\n")[2]:
        assert log(tmp_path, "claimed.txt") == claimed


def test_a_point_that_only_rounded_limits_let_in_decides_nothing(tmp_path: Path) -> None:
    """float32 has no number between 16777216 and 16777218."""
    query = PROPERTY.replace("(>= X_0 0)", "(>= X_0 16777217)")
    query = query.replace("(<= X_0 1)", "(<= X_0 16777217)")
    category = small_category(tmp_path / "small", query=query)
    answer = "sat\n((X_0 16777216)(X_1 0)(Y_0 16777216)(Y_1 0))"
    (outcome,) = run(tmp_path / "results", category, scripts(tmp_path / "tool", says(answer)))

    assert (outcome.verdict, outcome.cause) == (Verdict.UNKNOWN, Cause.OUTSIDE_BOX)
    assert "lies 1 outside" in outcome.message
    assert counterexamples(tmp_path) == []


@pytest.mark.parametrize("body", [says("good day"), says(""), ""], ids=["words", "empty", "none"])
def test_an_answer_that_is_none_is_an_error_of_its_own(tmp_path: Path, body: str) -> None:
    outcome = only(tmp_path, scripts(tmp_path / "tool", f"echo why >&2\n{body}"))

    assert (outcome.verdict, outcome.cause) == (Verdict.ERROR, Cause.UNREADABLE_ANSWER)
    assert outcome.message.endswith(": why")


@pytest.mark.parametrize(
    ("end", "how"), [("exit 3", "exit code 3"), ("kill -SEGV $$", "ended by signal 11")]
)
def test_a_tool_that_ends_badly_has_not_answered(tmp_path: Path, end: str, how: str) -> None:
    body = f"{says('unsat')}\necho first >&2; echo 'no licence' >&2; {end}"
    outcome = only(tmp_path, scripts(tmp_path / "tool", body))

    assert (outcome.verdict, outcome.cause) == (Verdict.ERROR, Cause.VERIFIER_FAILED)
    assert outcome.message == f"{how}: no licence"
    assert log(tmp_path) == "first\nno licence\n"


# --- time, memory and processes


def test_a_tool_that_overruns_is_a_timeout_and_what_it_had_said_is_kept(tmp_path: Path) -> None:
    body = f"{says('unsat')}\nsleep 600"
    outcome = only(tmp_path, scripts(tmp_path / "tool", body), timeout_s=0.5)

    assert (outcome.verdict, outcome.cause) == (Verdict.TIMEOUT, Cause.KILLED_AT_DEADLINE)
    assert outcome.late_answer == "unsat"
    assert "it did not stop in time" in outcome.message


def test_an_answer_within_the_grace_is_late(tmp_path: Path) -> None:
    body = f"sleep 1; {says(f'sat{chr(10)}{POINT}')}"
    outcome = only(tmp_path, scripts(tmp_path / "tool", body), timeout_s=0.5)

    assert (outcome.verdict, outcome.cause) == (Verdict.TIMEOUT, Cause.LATE_ANSWER)
    assert outcome.late_answer == "sat"


def test_a_late_sat_without_a_valid_point_is_no_late_answer(tmp_path: Path) -> None:
    body = f"{says('sat')}\nsleep 600"
    outcome = only(tmp_path, scripts(tmp_path / "tool", body), timeout_s=0.5)

    assert (outcome.verdict, outcome.late_answer) == (Verdict.TIMEOUT, "")


def test_processes_that_it_leaves_behind_are_killed_and_told(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = f"setsid sleep 600 & echo $! > {pids}\n{says('unsat')}"
    outcome = only(tmp_path, scripts(tmp_path / "tool", body))

    assert outcome.verdict is Verdict.UNSAT
    assert outcome.message == "processes outlived it and were killed: 1 (sleep)"
    assert not psutil.pid_exists(int(pids.read_text()))


def test_more_memory_than_it_may_take_is_told(tmp_path: Path) -> None:
    body = python("x = bytearray(2**29); import time; time.sleep(600)")
    outcome = only(tmp_path, scripts(tmp_path / "tool", body), memory_limit_gib=0.25)

    assert (outcome.verdict, outcome.cause) == (Verdict.ERROR, Cause.OUT_OF_MEMORY)
    assert "--memory-limit" in outcome.message


# --- what it is given


def test_it_gets_plain_files_under_their_own_names(tmp_path: Path) -> None:
    body = f"echo $1 $2 $(basename $3) $(basename $4) $6; head -c 14 $4; {says('unsat')}"
    category = small_category(tmp_path / "small", packed=True, rows=2)
    tool = scripts(tmp_path / "tool", f"echo $3 >> {tmp_path}/networks\n{body}")
    first, _ = run(tmp_path / "results", category, tool)

    assert first.verdict is Verdict.UNSAT
    written = (tmp_path / "results/run/logs/tool0/small/identity_prop0.rank0.log").read_text()
    assert written == "v1 small identity.onnx prop0.vnnlib 30\n(declare-const"
    networks = (tmp_path / "networks").read_text().split()
    assert networks[0] == networks[1], "it is unpacked once"
    assert not Path(networks[0]).exists(), "and for as long as the run"


def test_a_packed_file_that_is_damaged_is_told(tmp_path: Path) -> None:
    category = small_category(tmp_path / "small", packed=True)
    network = category / "onnx" / "identity.onnx.gz"
    network.write_bytes(network.read_bytes()[:-20])
    (outcome,) = run(tmp_path / "results", category, scripts(tmp_path / "tool", says("unsat")))

    assert (outcome.verdict, outcome.cause) == (Verdict.ERROR, Cause.MALFORMED_NETWORK)


def test_it_gets_its_arguments_and_environment_and_no_gpu_where_none_is_wanted(
    tmp_path: Path,
) -> None:
    body = f'echo "$7 $ASKED [$CUDA_VISIBLE_DEVICES]"; {says("unsat")}'
    path = str(scripts(tmp_path / "tool", body))
    tool = Tool("tool0", path, arguments=("--fast",), environment={"ASKED": "yes"})
    only(tmp_path, tool, device=Device.CPU)

    assert log(tmp_path) == "--fast yes []\n"


def test_the_vnnlib_command_line_answers_on_its_output(tmp_path: Path) -> None:
    assignment = tmp_path / "assignment"
    assignment.write_text("sat\nX float32 [1,2]\n0.75\n0.25\nY float32 [1,2]\n0.75\n0.25\n")
    answer = f'[[ $(<"$2") == *declare-network* ]] && cat {assignment}'
    body = f"case $1 in --version) echo 1.2 ;; verify) {answer} ;; esac"
    tool = write_script(tmp_path / "solver", body)
    category = small_category(tmp_path / "small", query=QUERY)
    (outcome,) = run(tmp_path / "results", category, tool)

    assert (outcome.verdict, outcome.cause, outcome.message) == (Verdict.SAT, Cause.NONE, "")
    assert len(counterexamples(tmp_path)) == 1
    assert read_manifest(tmp_path / "results" / "run").versions["tool0"] == "1.2"


# --- preparing and installing


def test_a_preparation_that_fails_is_told_and_nothing_is_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    tool = scripts(tmp_path / "tool", f"touch {ran}", prepare="echo unsupported >&2; exit 1")
    outcome = only(tmp_path, tool)

    assert (outcome.verdict, outcome.cause) == (Verdict.ERROR, Cause.PREPARE_FAILED)
    assert outcome.message == "prepare_instance.sh failed (exit code 1): unsupported"
    assert log(tmp_path, "prepare.log") == "unsupported\n"
    assert not ran.exists()


def test_a_preparation_that_overruns_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "PREPARE_TIMEOUT_S", 0.5)
    outcome = only(tmp_path, scripts(tmp_path / "tool", says("unsat"), prepare="sleep 600"))

    assert (outcome.verdict, outcome.cause) == (Verdict.TIMEOUT, Cause.KILLED_AT_DEADLINE)
    assert outcome.message.startswith("prepare_instance.sh was killed after")


def test_an_installation_that_fails_ends_the_run_before_anything_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    install = "echo downloading; echo 'no such package' >&2; exit 7"
    tool = scripts(tmp_path / "tool", f"touch {ran}", install=install)
    with pytest.raises(UsageError) as failed:
        only(tmp_path, tool)

    message = str(failed.value)
    assert f"verifier tool0: {tool}/install_tool.sh failed (exit code 7)" in message
    assert "\n  downloading\n  no such package\n" in message
    assert f"{tmp_path}/results/run/logs/tool0/install.out" in message
    assert not ran.exists()


def test_a_mended_installation_goes_on_in_the_same_run(tmp_path: Path) -> None:
    tool = scripts(tmp_path / "tool", says("unsat"), install="exit 7")
    category = small_category(tmp_path / "small")
    with pytest.raises(UsageError):
        run(tmp_path / "results", category, tool)
    write_script(tool / "install_tool.sh", "exit 0")
    (outcome,) = run(tmp_path / "results", category, tool)

    assert outcome.verdict is Verdict.UNSAT
    assert read_manifest(tmp_path / "results" / "run").status is Status.FINISHED


def test_two_tools_stand_beside_each_other(tmp_path: Path) -> None:
    tools = [scripts(tmp_path / f"tool{i}", says(word)) for i, word in enumerate(("unsat", "what"))]
    outcomes = run(tmp_path / "results", small_category(tmp_path / "small", rows=2), *tools)

    assert [(outcome.strategy, outcome.verdict) for outcome in outcomes] == [
        ("tool0", "unsat"),
        ("tool1", "error"),
    ] * 2


# --- resuming


def test_a_killed_run_goes_on_where_it_was_and_installs_nothing_again(tmp_path: Path) -> None:
    installed, answered, here = (tmp_path / name for name in ("installed", "answered", "here"))
    body = (
        f"echo $4 >> {answered}\n"
        f"if [[ $4 == *prop1* && ! -e {here} ]]; then touch {here}; sleep 600; fi\n" + says("unsat")
    )
    tool = scripts(tmp_path / "tool", body, install=f"echo once >> {installed}")
    category = small_category(tmp_path / "small", rows=3)
    arguments = [category, "--strategies", "none", "--verifier", f"mine={tool}"]
    arguments += ["--results", tmp_path / "results", "--run", "run"]
    killed = start(*arguments)
    give_up = time.monotonic() + 60
    while not here.exists():
        assert time.monotonic() < give_up
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    again = start(*arguments)
    printed, _ = again.communicate(timeout=120)

    assert again.returncode == 0
    assert "1 of 3 are done" in printed
    assert installed.read_text() == "once\n"
    asked = [Path(line).name for line in answered.read_text().splitlines()]
    assert asked == [f"prop{number}.vnnlib" for number in (0, 1, 1, 2)]
    verdicts = read_run(tmp_path / "results" / "run").outcomes["verdict"]
    assert list(verdicts) == ["unsat"] * 3


def start(*arguments: object) -> subprocess.Popen[str]:
    """`vnncomp-runner run`."""
    program = "import sys; from runner.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, "run", *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
