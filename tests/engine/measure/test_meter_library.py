"""The library that counts in torch's allocator is built once, whole, or not at all."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from runner.contract.vocabulary import Meter
from runner.engine.measure.library import BuildError, build, library_path, tensor_meter
from runner.engine.measure.probe import Probe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nothing has been built yet."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vnncomp-runner"


def pretend_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """A compiler whose LIBRARY is the word after -o."""
    script = tmp_path / "compiler"
    script.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nLIBRARY=$2\n' + does + "\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))


needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


def test_where_it_was_not_built_the_dispatch_mode_measures_and_the_report_says_so() -> None:
    with Probe(CPU) as probe:
        block = torch.zeros(1024)
        measured = probe.measurements()
    assert measured.meter is Meter.DISPATCH
    assert measured.peak_tensor_bytes == block.nbytes


@pytest.mark.slow
@needs_compiler
def test_once_built_it_measures_and_is_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    pretend_compiler(tmp_path, monkeypatch, "exit 1")
    build()
    with Probe(CPU) as probe:
        block = torch.zeros(1024)
        measured = probe.measurements()
    assert measured.meter is Meter.ALLOCATOR
    assert measured.peak_tensor_bytes == block.nbytes


@pytest.mark.slow
@needs_compiler
def test_two_that_build_at_once_leave_one_whole_library(cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = {future.result() for future in [pool.submit(build) for _ in range(2)]}
    assert paths == {library_path()}
    assert list(cache.iterdir()) == [library_path()]
    assert tensor_meter().name is Meter.ALLOCATOR


def test_without_a_compiler_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="no C\\+\\+ compiler"):
        build()


def test_a_compiler_that_fails_is_told_with_its_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    pretend_compiler(tmp_path, monkeypatch, "echo note; echo a.cpp: error: no header >&2; exit 1")
    with pytest.raises(BuildError, match=r"a\.cpp: error: no header"):
        build()
    assert not list(cache.iterdir())


def test_a_compiler_that_writes_nonsense_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    pretend_compiler(tmp_path, monkeypatch, 'echo nonsense >"$LIBRARY"')
    with pytest.raises(BuildError):
        build()
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    pretend_compiler(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(BuildError, match="Not a directory"):
        build()
    assert tensor_meter().name is Meter.DISPATCH


def test_a_library_that_does_not_load_is_warned_of(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir(parents=True)
    library_path().write_text("nonsense")
    with caplog.at_level(logging.WARNING):
        assert tensor_meter().name is Meter.DISPATCH
    assert "dispatch mode" in caplog.text


def test_another_torch_has_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    here = library_path()
    monkeypatch.setattr(torch, "__version__", "2.8.0")
    assert library_path() != here
