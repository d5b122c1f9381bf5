"""The networks of a recipe, trained by processes that this program starts and never imports.

A network is trained a slice at a time, each in a process of its own that goes on from the last
checkpoint: whatever is killed has lost one slice at most, and memory is measured by network.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Cause
from runner.execute.gang import Ending, RankServer
from runner.record.lock import exclusive

_PROGRAMS = "runner.training.training_programs"
CHECK, TRAIN, EXPORT, ATTACK = (
    f"{_PROGRAMS}:{name}_target" for name in ("check", "train", "export", "attack")
)
PRELOAD = (_PROGRAMS,)
FIGURES = "networks.csv"

SLICE_S = 10.0
# An epoch is never cut: on large data with costly bounds it takes minutes.
_WITHIN_S = 24 * 3600.0


@dataclass(frozen=True)
class RecipeNetwork:
    """One that a recipe asks for. `epochs`: of its training."""

    name: str
    epochs: int


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe that makes sense, and where what it makes lies. `timeout_s`: of its instances."""

    recipe: Path
    home: Path
    name: str
    timeout_s: float
    networks: tuple[RecipeNetwork, ...]

    @property
    def category(self) -> Path:
        return self.home / self.name

    @property
    def figures(self) -> Path:
        """A row for each network and radius (CSV)."""
        return self.home / FIGURES


class TrainingObserver(Protocol):
    """Who wants to know how training goes."""

    def progressed(self, network: RecipeNetwork, progress: dict[str, Any]) -> None:
        """A slice is over: fields of runner.training.saved.EpochProgress."""


def check(recipes: Sequence[Path], out: Path, server: RankServer) -> list[CheckedRecipe]:
    """Everything that may be wrong with recipes and data is said before anything is trained.

    Raises UsageError.
    """
    checked = [_check(recipe, out, server) for recipe in recipes]
    names = [one.name for one in checked]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two recipes are called {name}; rename one of the files")
    return checked


def train(checked: CheckedRecipe, server: RankServer, observer: TrainingObserver) -> None:
    """Trains what is not trained yet, and writes category and figures.

    Raises UsageError, also where another process trains in the same folder.
    """
    with exclusive(checked.home):
        for network in checked.networks:
            while True:
                payload = {"network": network.name, "seconds": SLICE_S}
                progress = _ask(checked.recipe, checked.home, server, TRAIN, payload)
                observer.progressed(network, progress)
                if progress["epoch"] >= progress["epochs"]:
                    break
        _ask(checked.recipe, checked.home, server, EXPORT, {})


def violated(checked: CheckedRecipe, network: str, server: RankServer) -> set[str]:
    """Properties of a network that an attack apart from the verifier's finds a violation of."""
    payload = {"network": network}
    answer = _ask(checked.recipe, checked.home, server, ATTACK, payload)
    return {str(name) for name in answer["violated"]}


def _check(recipe: Path, out: Path, server: RankServer) -> CheckedRecipe:
    home = out / recipe.stem
    answer = _ask(recipe, home, server, CHECK, {})
    networks = tuple(RecipeNetwork(**network) for network in answer["networks"])
    return CheckedRecipe(recipe, home, answer["name"], answer["timeout"], networks)


def _ask(
    recipe: Path, home: Path, server: RankServer, target: str, more: dict[str, Any]
) -> dict[str, Any]:
    payload = {"recipe": str(recipe.absolute()), "home": str(home.absolute()), **more}
    result = server.run(target, payload, 1, home / "process", _WITHIN_S)
    (report,) = result.reports
    if report is None:
        log = home / "process" / "rank0.log"
        raise UsageError(
            f"{recipe}: a process of training ended by {result.how or result.ended}; see {log}. "
            "The same command goes on from the last checkpoint"
        )
    if "refused" in report:
        raise UsageError(str(report["refused"]))
    if report.get("cause") == Cause.DISK_FULL:
        raise OSError(errno.ENOSPC, str(report["message"]))
    if result.ended is not Ending.FINISHED or result.dead_rank is not None:
        raise UsageError(f"{recipe}: {report.get('cause')}: {report.get('message')}")
    return report
