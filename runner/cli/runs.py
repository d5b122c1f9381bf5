"""Run folders as commands name them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from runner.contract.errors import UsageError
from runner.record.manifest import FILE_NAME

if TYPE_CHECKING:
    from runner.record.read import Run

_log = logging.getLogger(__name__)


def find_run(run: str, results: Path) -> Path:
    """A run folder, or the run of that name in `results`. Raises UsageError that lists them."""
    for candidate in (Path(run), results / run):
        if (candidate / FILE_NAME).is_file():
            return candidate
    known = sorted(file.parent.name for file in results.glob(f"[!.]*/{FILE_NAME}"))
    listed = f"runs in {results}: {', '.join(known)}" if known else f"{results} has no run"
    raise UsageError(f"{run} is no run folder; {listed}")


def read_runs(names: Iterable[str], results: Path) -> list[Run]:
    """Those that can be read, each once; the others are warned of.

    Raises UsageError when there is none.
    """
    from runner.record.read import read_run

    found: dict[Path, Run] = {}
    problems = []
    for name in names:
        try:
            path = find_run(name, results)
            found.setdefault(path.resolve(), read_run(path))
        except UsageError as error:
            problems.append(str(error))
    if not found:
        raise UsageError("\n".join(problems))
    for problem in problems:
        _log.warning("left out: %s", problem)
    return list(found.values())


def newest_run(results: Path) -> Path:
    """Raises UsageError when there is none."""
    files = sorted(results.glob(f"[!.]*/{FILE_NAME}"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UsageError(f"{results} has no run; name one")
    return files[-1].parent
