"""The words of an answer, in every spelling that tools use."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.contract.vocabulary import Verdict
from runner.verifiers.answer import LARGEST_ANSWER, read_answer


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("unsat\n", Verdict.UNSAT),
        ("holds", Verdict.UNSAT),
        ("  UNSAT \r\n", Verdict.UNSAT),
        ("\n\nunknown\n", Verdict.UNKNOWN),
        ("timeout", Verdict.TIMEOUT),
        ("timed-out", Verdict.TIMEOUT),
        ("error", Verdict.ERROR),
        ("\ufeffViolated", Verdict.SAT),
    ],
)
def test_a_verdict_in_any_spelling_is_read(tmp_path: Path, text: str, verdict: Verdict) -> None:
    (tmp_path / "results").write_text(text)
    assert read_answer(tmp_path / "results", "it") == (verdict, "", "")


def test_what_follows_the_verdict_is_the_counterexample(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("sat\n((X_0 1)\n(Y_0 2))\n")
    said = read_answer(tmp_path / "results", "it")
    assert (said.verdict, said.counterexample) == (Verdict.SAT, "((X_0 1)\n(Y_0 2))")


@pytest.mark.parametrize("text", ["", " \n", "sat unsat", "satisfiable", "un sat", "\x00\xff sat"])
def test_anything_else_is_no_answer_and_says_why(tmp_path: Path, text: str) -> None:
    (tmp_path / "results").write_text(text)
    said = read_answer(tmp_path / "results", "the file")

    assert said.verdict is None
    assert said.message.startswith("the file ")


def test_an_answer_that_is_not_there_or_too_large_is_none(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.write(b"unsat\n")
        file.truncate(LARGEST_ANSWER + 1)

    assert read_answer(tmp_path / "absent", "it").message == "it was not written"
    assert read_answer(tmp_path / "huge", "it").verdict is None
