"""The notebook runs as it is, on the example run and on any other."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from made_runs import MadeRun, compared
from nbclient import NotebookClient

from runner.contract.vocabulary import Verdict

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def executed(monkeypatch: pytest.MonkeyPatch, run: Path | None = None) -> list[str]:
    """Every text and kind of output of the notebook; raises when a cell does."""
    if run:
        monkeypatch.setenv("RUN_FOLDER", str(run))
    else:
        monkeypatch.delenv("RUN_FOLDER", raising=False)
    notebook = nbformat.read(NOTEBOOKS / "report.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": NOTEBOOKS}})
    client.execute()
    return [
        text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind, text in output.get("data", {"": output.get("text", "")}).items()
        if kind != "image/png"
    ] + [kind for cell in notebook.cells for output in cell.get("outputs", ())
         for kind in output.get("data", {})]  # fmt: skip


def test_it_shows_the_example_run(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = executed(monkeypatch)

    assert shown.count("image/png") == 3
    assert any("example-run" in text for text in shown)
    assert any("resting weights" in text for text in shown)


def test_it_shows_a_run_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = executed(monkeypatch, compared(tmp_path).read().path)

    assert any("made" in text for text in shown)


def test_it_runs_where_there_is_nothing_to_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = MadeRun(tmp_path)
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (50, 50))
    run.add("tp", 2, Verdict.UNSAT, 1.0, (50, 50))

    assert executed(monkeypatch, run.read().path).count("image/png") == 2


def test_it_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOKS / "report.ipynb", as_version=4)

    assert not any(cell.get("outputs") for cell in notebook.cells)
