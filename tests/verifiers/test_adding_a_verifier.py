"""The example of docs/adding-a-verifier.md, run as the document says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_tools import PROPERTY, scripts, small_category
from test_fake_tools import only, run

from runner.contract.vocabulary import Cause, Verdict
from runner.verifiers.named import named_tools

pytestmark = pytest.mark.alone

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "adding-a-verifier.md"


def example(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(found)


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    folder = scripts(tmp_path / "middle", "")
    (folder / "run_instance.sh").write_text(example("bash"))
    return folder


def test_the_example_is_believed_where_the_middle_is_unsafe(tmp_path: Path, tool: Path) -> None:
    outcome = only(tmp_path, tool)
    assert (outcome.verdict, outcome.message) == (Verdict.SAT, "")


def test_the_example_is_not_believed_where_it_is_safe(tmp_path: Path, tool: Path) -> None:
    query = PROPERTY.replace("(>= Y_0 0.5)", "(>= Y_0 0.75)")
    category = small_category(tmp_path / "small", query=query)
    (outcome,) = run(tmp_path / "results", category, tool)

    assert (outcome.verdict, outcome.cause) == (Verdict.ERROR, Cause.INVALID_COUNTEREXAMPLE)
    assert "safe output" in outcome.message


def test_the_file_of_the_document_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "verifiers.toml"
    file.write_text(example("toml"))
    middle, solver = named_tools([], file)

    assert middle.path == str(tmp_path / "tools" / "middle")
    assert middle.environment == {"OMP_NUM_THREADS": "1"}
    assert (solver.path, solver.arguments) == (str(tmp_path / "bin" / "solver"), ("--fast",))
