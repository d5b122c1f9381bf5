"""The example of docs/adding-a-training-method.md is a method that trains."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from recipes import tiny
from runner.contract.errors import UsageError
from runner.training.data import data_set
from runner.training.loop import train_for
from runner.training.methods import METHODS
from runner.training.recipe import read_recipe

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "adding-a-training-method.md"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The document's recipe, and its method registered."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (table,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    module = types.ModuleType("noisy")
    monkeypatch.setitem(sys.modules, "noisy", module)
    exec(code, module.__dict__)
    monkeypatch.setitem(METHODS, "noisy", module.Noisy)
    path = tiny(tmp_path)
    path.write_text(path.read_text() + table)
    return path


@pytest.mark.slow
def test_it_trains_a_network(recipe: Path, tmp_path: Path) -> None:
    (wanted,) = (each for each in read_recipe(recipe).networks() if each.label == "noisy")
    done = train_for(wanted, data_set("digits"), tmp_path / "noisy.pt", 1e9)
    assert done.done
    assert done.accuracy > 0.5


def test_its_options_are_refused_by_name(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("spread = 2.0", "spread = -2.0"))
    with pytest.raises(UsageError, match=r"\[methods.noisy\] spread = -2.0: a number from 0 to 10"):
        read_recipe(recipe)
