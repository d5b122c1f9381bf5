"""Gangs of the targets that do one thing each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import targets

from runner.execute.gang import GangResult, RankServer

Run = Callable[..., GangResult]


@pytest.fixture
def run(rank_server: RankServer, tmp_path: Path) -> Run:
    """Runs a target of `targets` by its name, with a timeout of 20 s unless told."""

    def run(name: str, ranks: int = 1, timeout_s: float = 20.0, **options: Any) -> GangResult:
        grace_s = options.pop("grace_s", 0.2)
        memory_limit_bytes = options.pop("memory_limit_bytes", None)
        target = f"{targets.__name__}:{name}"
        return rank_server.run(
            target, options, ranks, tmp_path / "gang", timeout_s, grace_s, memory_limit_bytes
        )

    return run
