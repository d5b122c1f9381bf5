"""The notebook on training remakes table and plots of the committed result, and of another."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOK = NOTEBOOKS / "training.ipynb"
EXAMPLE = NOTEBOOKS / "example-training" / "training.csv"


def executed() -> list[tuple[str, str]]:
    """Kind and text of every output; raises when a cell does."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": NOTEBOOKS}}).execute()
    return [
        (kind, text)
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind, text in output.get("data", {}).items()
    ]


def test_it_shows_every_method_of_the_committed_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINING_CSV", raising=False)
    shown = executed()
    assert [kind for kind, _ in shown].count("image/png") == 3
    tables = "".join(text for kind, text in shown if kind == "text/html")
    assert all(method in tables for method in pd.read_csv(EXAMPLE)["method"])


def test_it_shows_a_result_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = pd.read_csv(EXAMPLE)
    own = tmp_path / "training.csv"
    example[example["method"] == "nbc"].to_csv(own, index=False)
    monkeypatch.setenv("TRAINING_CSV", str(own))
    assert any("1 methods" in text for _, text in executed())


def test_it_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
