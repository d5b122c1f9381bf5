"""The files that a run left besides its tables."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from runner.plan import instance_name
from runner.record.folder import file_name
from runner.record.read import Run

_PROGRESS = ".progress.csv"


class Artefacts:
    """Finds logs, histories and counterexamples of rows of a run's outcomes; None where there is
    no file.

    Instances of a category whose names are alike have a line number in theirs, which the tables
    do not tell: nothing is found for them, rather than another instance's file.
    """

    def __init__(self, run: Run) -> None:
        self._run = run.path
        patterns = ("*/*/*.counterexample.gz", "logs/*/*/*.log", f"logs/*/*/*{_PROGRESS}")
        self._files = frozenset(file for pattern in patterns for file in run.path.glob(pattern))
        names: dict[tuple[str, str], set[tuple[str, str]]] = {}
        questions = run.outcomes[["category", "network", "property"]].drop_duplicates()
        for category, network, name in questions.itertuples(index=False, name=None):
            alike = names.setdefault((category, instance_name(network, name)), set())
            alike.add((network, name))
        self._ambiguous = {name for name, alike in names.items() if len(alike) > 1}

    def counterexample(self, row: Mapping[Hashable, Any]) -> Path | None:
        name = self._name(row)
        path = self._folder(row) / f"{file_name(name)}.counterexample.gz"
        return path if name and path in self._files else None

    def logs(self, row: Mapping[Hashable, Any]) -> dict[int, Path]:
        """By rank, of the ranks that said something."""
        name = self._name(row)
        if not name:
            return {}
        ranks = range(int(row["ranks"]))
        paths = {rank: self._logs(row) / f"{file_name(name)}.rank{rank}.log" for rank in ranks}
        return {rank: path for rank, path in paths.items() if path in self._files}

    def progress(self, row: Mapping[Hashable, Any]) -> Path | None:
        """The history of its branch and bound."""
        name = self._name(row)
        path = self._logs(row) / f"{file_name(name)}{_PROGRESS}"
        return path if name and path in self._files else None

    def _logs(self, row: Mapping[Hashable, Any]) -> Path:
        return self._run / "logs" / str(row["strategy"]) / str(row["category"])

    def _folder(self, row: Mapping[Hashable, Any]) -> Path:
        return self._run / str(row["strategy"]) / str(row["category"])

    def _name(self, row: Mapping[Hashable, Any]) -> str:
        name = instance_name(str(row["network"]), str(row["property"]))
        if (str(row["category"]), name) in self._ambiguous:
            return ""
        return name if row["repeat"] == 1 else f"{name}.repeat{row['repeat']}"
