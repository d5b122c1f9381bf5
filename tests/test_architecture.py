"""The arrows between the rooms of the house, read from the code's imports."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

RUNNER = Path(__file__).resolve().parent.parent / "runner"
# What a room may import, beside itself.
ARROWS: dict[str, set[str]] = {
    "contract": set(),
    "problem": {"contract"},
    "verifiers": {"contract"},
    "execute": {"contract"},
    "record": {"problem", "contract"},
    "run": {"verifiers", "execute", "record", "problem", "contract"},
    "report": {"verifiers", "record", "problem", "contract"},
    "experiments": {"report", "run", "verifiers", "execute", "record", "problem", "contract"},
    "cli": {
        *("experiments", "report", "run", "verifiers"),
        *("execute", "record", "problem", "contract"),
    },
    "engine": {"problem", "contract"},
    "training": {"problem", "contract"},
}
WITH_TORCH = {"engine", "training"}
TORCH = {"torch", "torchvision", "auto_LiRPA", "onnx2torch"}


def imports(file: Path) -> Iterator[str]:
    """Modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def files(room: str) -> list[Path]:
    return sorted((RUNNER / room).rglob("*.py"))


def test_every_room_is_known() -> None:
    assert {path.parent.name for path in RUNNER.glob("*/__init__.py")} == set(ARROWS)
    assert [path.name for path in RUNNER.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("room", ARROWS)
def test_arrows_go_one_way(room: str) -> None:
    crossing = [
        f"{file.relative_to(RUNNER)} imports {module}"
        for file in files(room)
        for module in imports(file)
        if module.startswith("runner.") and module.split(".")[1] not in {room, *ARROWS[room]}
    ]
    assert not crossing


@pytest.mark.parametrize("room", sorted(set(ARROWS) - WITH_TORCH))
def test_the_harness_never_imports_torch(room: str) -> None:
    crossing = [
        f"{file.relative_to(RUNNER)} imports {module}"
        for file in files(room)
        for module in imports(file)
        if module.split(".")[0] in TORCH
    ]
    assert not crossing


def test_an_arrow_leads_nowhere_back() -> None:
    """Else two rooms would be one."""
    left = dict(ARROWS)
    while left:
        ends = [room for room, targets in left.items() if not targets & left.keys()]
        assert ends, f"a circle among {sorted(left)}"
        for room in ends:
            del left[room]


def test_no_module_is_called_as_another() -> None:
    names = Counter(path.stem for path in RUNNER.rglob("*.py") if path.name != "__init__.py")
    assert [name for name, times in names.items() if times > 1] == []


def test_no_class_is_called_as_another() -> None:
    """Private ones are their module's affair."""
    names = Counter(
        node.name
        for path in RUNNER.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in names.items() if times > 1] == []
