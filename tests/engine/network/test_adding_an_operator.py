"""The example of docs/adding-an-operator.md is all that an operator takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx_models import constant, node, save
from small_networks import SmallNetwork, box_of
from sound_bounds import assert_sound

from runner.engine import functions
from runner.engine.functions.family import Bend, Family, Function
from runner.engine.network.load import load_graph, prepare
from runner.engine.network.translation import TRANSLATIONS
from runner.engine.network.translation import functions as translation

DOCUMENT = Path(__file__).parents[3] / "docs" / "adding-an-operator.md"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> str:
    """Declares the operator, whose name it gives."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    found: dict[str, Any] = {"torch": torch, "Bend": Bend, "Family": Family, "Function": Function}
    exec(code, found)
    ((name, family),) = found["FAMILIES"].items()
    assert name not in TRANSLATIONS, "the example is there already: choose another"
    monkeypatch.setitem(functions.ALL, name, family)
    monkeypatch.setitem(functions.FAMILIES, name, family)
    monkeypatch.setitem(TRANSLATIONS, name, translation.TRANSLATIONS["Erf"])
    return str(name)


def test_the_example_loads_replays_and_has_sound_bounds(example: str, tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w b", "h", transB=1), node(example, "h", "a"), node("Gemm", "a v")]
    weights: dict[str, Any] = {
        "w": constant((5, 3)),
        "b": constant((5,), 1),
        "v": constant((5, 2), 2),
    }
    path = save(tmp_path, nodes, (1, 3), (1, 2), **weights)
    prepare(path, tmp_path / "prepared")
    loaded = load_graph(path)
    network = SmallNetwork(loaded.graph, loaded.tensors)
    for radius in (0.5, 0.0, 50.0):
        assert_sound(network, box_of(network, radius, batch=2), torch.float32)
