"""Run folders as commands name them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from runner.errors import UsageError
from runner.record.manifest import FILE_NAME

Results = Annotated[Path, typer.Option(metavar="DIR", help="The folder that run folders are in.")]


def find_run(run: str, results: Path) -> Path:
    """A run folder, or the run of that name in `results`. Raises UsageError that lists them."""
    for candidate in (Path(run), results / run):
        if (candidate / FILE_NAME).is_file():
            return candidate
    known = sorted(file.parent.name for file in results.glob(f"[!.]*/{FILE_NAME}"))
    listed = f"runs in {results}: {', '.join(known)}" if known else f"{results} has no run"
    raise UsageError(f"{run} is no run folder; {listed}")


def find_runs(runs: Iterable[str], results: Path) -> list[Path]:
    """Several of them, each once."""
    return list(dict.fromkeys(find_run(run, results) for run in runs))


def newest_run(results: Path) -> Path:
    """Raises UsageError when there is none."""
    files = sorted(results.glob(f"[!.]*/{FILE_NAME}"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UsageError(f"{results} has no run; name one")
    return files[-1].parent
