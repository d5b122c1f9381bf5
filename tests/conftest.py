"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def vnncomp2022() -> Path:
    """Folder of the VNN-COMP 2022 data (`benchmarks/`, `truth.csv`); skips where it is absent."""
    default = REPOSITORY.parent / "shared" / "vnncomp2022"
    folder = Path(os.environ.get("VNNCOMP2022", default))
    if not (folder / "truth.csv").is_file():
        pytest.skip("VNN-COMP 2022 data is absent (set VNNCOMP2022 to its folder)")
    return folder
