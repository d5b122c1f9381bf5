"""What every kind of verifier keeps to: a kind that is registered is tested here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_tools import POINT, QUERY, says, scripts, write_script

from runner.contract.errors import InstanceError, UsageError
from runner.contract.verifier import Asked, Tool, Verifier
from runner.contract.vocabulary import Cause, Verdict
from runner.run.step import Step
from runner.verifiers.kinds import KINDS, verifier_of

ANSWERS = {
    "unsat": Verdict.UNSAT,
    f"sat\n{POINT}": Verdict.SAT,
    "unknown": Verdict.UNKNOWN,
    "error": Verdict.ERROR,
    "good day": None,
}


def answering_scripts(path: Path, answer: str) -> Path:
    return scripts(path, says(answer), install="echo ready")


def answering_command(path: Path, answer: str) -> Path:
    body = f'if [[ $1 == --version ]]; then echo 1.2; else cat <<"END"\n{answer}\nEND\nfi'
    return write_script(path, body)


# How a tool of a kind is made that gives one answer to everything.
MAKE: dict[str, Callable[[Path, str], Path]] = {
    "vnncomp-scripts": answering_scripts,
    "vnnlib-cli": answering_command,
}


def asked(folder: Path) -> Asked:
    (folder / "work").mkdir()
    network, query = folder / "net.onnx", folder / "query.vnnlib"
    network.touch()
    query.write_text(QUERY)
    return Asked("digits", network, query, 1.5, folder / "work")


def made(kind: str, folder: Path, answer: str = "unsat") -> Verifier:
    return verifier_of(Tool("fake", str(MAKE[kind](folder / "tool", answer))))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_found_by_its_path(kind: str, tmp_path: Path) -> None:
    path = MAKE[kind](tmp_path / "tool", "unsat")
    assert type(verifier_of(Tool("fake", str(path)))) is KINDS[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.split()[0])
def test_its_programs_run_and_its_answer_is_read(kind: str, answer: str, tmp_path: Path) -> None:
    verifier, question = made(kind, tmp_path, answer), asked(tmp_path)
    verifier.check()
    install, run = Step(tmp_path, "install"), Step(tmp_path, "run")
    commands = [(install, verifier.installation()), (run, verifier.program(question))]
    if preparation := verifier.preparation(question):
        commands.insert(1, (Step(tmp_path, "prepare"), preparation))
    for step, arguments in commands:
        assert step.run(arguments, {"PATH": "/usr/bin:/bin"}, question.folder, 20).exit_code == 0

    said = verifier.read(question, run.output)
    assert said.verdict is ANSWERS[answer]
    assert said.counterexample == (POINT if said.verdict is Verdict.SAT else "")
    assert bool(said.message) == (said.verdict is None)
    version = verifier.version(install.output.read_text())
    assert version
    assert "\n" not in version


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_or_not_executable_is_refused(kind: str, tmp_path: Path) -> None:
    verifier = made(kind, tmp_path)
    for file in [path for path in tmp_path.rglob("*") if path.is_file()]:
        file.chmod(0o644)
        with pytest.raises(UsageError, match=f"verifier fake: .*chmod \\+x {file}"):
            verifier.check()
        elsewhere = file.rename(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match=r"verifier fake: .*; (it needs|name) "):
            verifier.check()
        elsewhere.rename(file).chmod(0o755)
    verifier.check()


def test_scripts_get_what_vnncomp_gives_them(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "tool", "")
    verifier = verifier_of(Tool("fake", str(folder), arguments=("more",)))
    question = asked(tmp_path)
    files = (str(question.network), str(question.property))
    results = str(question.folder / "results.txt")

    assert verifier.installation() == (f"{folder}/install_tool.sh", "v1")
    prepare = (f"{folder}/prepare_instance.sh", "v1", "digits", *files, "more")
    assert verifier.preparation(question) == prepare
    run = (f"{folder}/run_instance.sh", "v1", "digits", *files, results, "1.5", "more")
    assert verifier.program(question) == run


def test_another_script_is_another_version(tmp_path: Path) -> None:
    verifier = made("vnncomp-scripts", tmp_path)
    before = verifier.version("")
    (tmp_path / "tool" / "run_instance.sh").write_text("#!/bin/bash\n")
    assert verifier.version("") != before


def test_the_vnnlib_command_line_gets_the_name_of_the_network_and_whole_seconds(
    tmp_path: Path,
) -> None:
    path = MAKE["vnnlib-cli"](tmp_path / "tool", "unsat")
    verifier, question = verifier_of(Tool("fake", str(path), ("--fast",))), asked(tmp_path)

    assert verifier.program(question) == (
        *(str(path), "--fast", "verify", str(question.property)),
        *("--network", f"N={question.network}", "--timeout", "2"),
    )


def test_the_vnnlib_command_line_cannot_be_asked_queries_of_1_0(tmp_path: Path) -> None:
    verifier, question = made("vnnlib-cli", tmp_path), asked(tmp_path)
    question.property.write_text("; (declare-network N\n(declare-const X_0 Real)")
    with pytest.raises(InstanceError, match="no query of VNN-LIB") as refused:
        verifier.program(question)
    assert refused.value.cause is Cause.UNSUPPORTED_PROPERTY
