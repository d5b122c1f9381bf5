"""The files that a run left besides its tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from runner.problem.names import full_name, instance_name
from runner.record.folder import file_name
from runner.record.read import Run
from runner.record.shards import shards_of

_PROGRESS = ".progress.csv"


class Artefacts:
    """Finds logs, histories and counterexamples of rows of a run's outcomes; None where there is
    no file.

    Rows that differ in their timeout alone have a line number in their names, which the tables do
    not tell: nothing is found for them, rather than another instance's file.
    """

    def __init__(self, run: Run) -> None:
        shards = shards_of(run.path, run.manifest)
        self._runs = [shard.folder for shard in shards] or [run.path]
        patterns = ("*/*/*.counterexample.gz", "logs/*/*/*.log", f"logs/*/*/*{_PROGRESS}")
        self._files = frozenset(
            file for pattern in patterns for part in self._runs for file in part.glob(pattern)
        )
        questions = run.outcomes[["category", "network", "property", "timeout_s"]]
        asked = list(questions.drop_duplicates().itertuples(index=False, name=None))
        pairs = Counter((category, network, name) for category, network, name, _ in asked)
        self._twice = {pair for pair, times in pairs.items() if times > 1}
        self._short = Counter((home, instance_name(network, name)) for home, network, name in pairs)

    def counterexample(self, row: Mapping[Hashable, Any]) -> Path | None:
        return self._find(_folder(row), row, ".counterexample.gz")

    def logs(self, row: Mapping[Hashable, Any]) -> dict[int, Path]:
        """By rank, of the ranks that said something."""
        folder = Path("logs") / _folder(row)
        ranks = range(int(row["ranks"]))
        paths = {rank: self._find(folder, row, f".rank{rank}.log") for rank in ranks}
        return {rank: path for rank, path in paths.items() if path is not None}

    def progress(self, row: Mapping[Hashable, Any]) -> Path | None:
        """The history of its branch and bound."""
        return self._find("logs" / _folder(row), row, _PROGRESS)

    def _find(self, folder: Path, row: Mapping[Hashable, Any], suffix: str) -> Path | None:
        repeat = "" if row["repeat"] == 1 else f".repeat{row['repeat']}"
        paths = (
            run / folder / f"{file_name(name + repeat)}{suffix}"
            for name in self._names(row)
            for run in self._runs
        )
        return next((path for path in paths if path in self._files), None)

    def _names(self, row: Mapping[Hashable, Any]) -> list[str]:
        """What the row's files may be called: with folders, if others are alike without them."""
        home, network, name = (str(row[key]) for key in ("category", "network", "property"))
        if (home, network, name) in self._twice:
            return []
        short = instance_name(network, name)
        alone = self._short[home, short] == 1
        return [full_name(network, name), short] if alone else [full_name(network, name)]


def _folder(row: Mapping[Hashable, Any]) -> Path:
    return Path(str(row["strategy"])) / str(row["category"])
