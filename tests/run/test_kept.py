"""What preparing a question leaves for whoever asks it next."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.problem.files import source_digest
from runner.run.kept import FOLDER, KEPT_NETWORKS, Kept
from runner.run.prepare import Preparation


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setenv(FOLDER, str(tmp_path / "private"))
    return Kept()


def ask(folder: Path, limit: str) -> tuple[Path, Path]:
    """A question: its network, and a property that `limit` makes another one."""
    network, property = folder / "network.onnx", folder / f"{limit}.vnnlib"
    network.write_bytes(b"a network")
    property.write_text(f"(declare-const X_0 Real)\n(assert (<= X_0 {limit}))\n")
    return network, property


def prepared(folder: Path, property: Path) -> Preparation:
    folder.mkdir(exist_ok=True)
    network, fitted = folder / "network.safetensors", folder / f"{source_digest(property)}.property"
    network.write_text("converted")
    fitted.write_text(f"read from {property.name}")
    return Preparation(network, 0.5, None, inputs=3, fitted=fitted)


def test_the_next_takes_the_network_and_the_property_as_it_was_read(
    kept: Kept, tmp_path: Path
) -> None:
    network, property = ask(tmp_path, "1.0")
    kept.keep(prepared(tmp_path / "made", property), network, property)
    with kept.scratch() as scratch:
        taken = kept.take(network, property, scratch)
        assert taken is not None
        assert taken.inputs == 3
        assert taken.prepared.read_text() == "converted"
        assert taken.fitted is not None
        assert taken.fitted.read_text() == "read from 1.0.vnnlib"
        assert taken.fitted.stem == source_digest(property), "which reading it checks"
    with kept.scratch() as scratch:
        assert kept.take(network, property, scratch) is not None, "and so does the one after"


def test_another_property_of_the_network_finds_nothing(kept: Kept, tmp_path: Path) -> None:
    network, property = ask(tmp_path, "1.0")
    kept.keep(prepared(tmp_path / "made", property), network, property)
    with kept.scratch() as scratch:
        assert kept.take(*ask(tmp_path, "2.0"), scratch) is None


def test_the_oldest_go_with_the_properties_that_were_read_for_them(
    kept: Kept, tmp_path: Path
) -> None:
    for index in range(KEPT_NETWORKS + 2):
        network, property = ask(tmp_path, f"{index}.0")
        kept.keep(prepared(tmp_path / "made", property), network, property)
    names = [path.suffix for path in (tmp_path / "private").iterdir()]
    assert sorted(names) == [".network"] * KEPT_NETWORKS + [".property"] * KEPT_NETWORKS
