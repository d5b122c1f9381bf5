"""What every branch and bound is: a search over one case, and a record of how it went."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import torch

from runner.contract.workload import Workload
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.refinement import Depth
from runner.engine.bounds.tagging import Tagger
from runner.engine.search.cases import CaseProgress
from runner.engine.search.sharing import Sharing
from runner.engine.targets import Candidate

# Of a written history.
MOST_LINES = 1000


class SearchEnd(StrEnum):
    """How a search over one case ended; time running out is DeadlineReached instead."""

    PROVED = "proved"  # every domain of every disjunct is closed
    COUNTEREXAMPLE = "counterexample"  # a candidate was confirmed
    GAVE_UP = "gave_up"  # nothing is left that could be split
    PAUSED = "paused"  # can go on


@dataclass(frozen=True)
class Point:
    """One line of a search's history. `bound`: the least margin over what is open."""

    seconds: float
    domains: int
    open: int
    bound: float


@dataclass
class Progress:
    """What the searches of one verification did; one record goes through all of them.

    `method`: the search that is or was the last to run; `domains`: sub-problems bounded;
    `rounds`: batches of them; `depth`: splits above the deepest.
    """

    method: str = ""
    domains: int = 0
    rounds: int = 0
    depth: int = 0
    seconds: float = 0.0
    history: list[Point] = field(default_factory=list)
    _start: float | None = None

    @property
    def domains_per_s(self) -> float:
        return self.domains / self.seconds if self.seconds > 0 else 0.0

    def start(self, method: str) -> None:
        """Before a search; the clock runs from the first one on."""
        self.method = method
        if self._start is None:
            self._start = time.perf_counter()

    def write(self, path: Path) -> None:
        """The history as CSV, at most about MOST_LINES lines; the last round is always there."""
        step = max(1, len(self.history) // MOST_LINES)
        kept = self.history[::-step][::-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="ascii", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(field.name for field in fields(Point))
            lines.writerows(map(astuple, kept))

    def round(self, domains: int, depth: int, open_domains: int, bound: float) -> None:
        """After a batch: how many domains it bounded, and what is open now."""
        self.domains += domains
        self.rounds += 1
        self.depth = max(self.depth, depth)
        if self._start is not None:
            self.seconds = time.perf_counter() - self._start
        self.history.append(Point(self.seconds, self.domains, open_domains, bound))


@dataclass(frozen=True)
class SearchContext:
    """All that a search needs.

    `case`: its `open` disjuncts are to be decided, `known` bounds may help; `number`: of the case
    in the property, for candidates. `within`: the values [1, *input], of the network's own type,
    that a counterexample may have; `settings`: of bound propagation; `pauses`: whether a trial is
    over, None where there is none; `deepen`: bounds the case's neurons anew, by
    trees; the nodes whose trees grew.
    """

    network: BoundNetwork
    case: CaseProgress
    number: int
    within: Interval
    settings: Settings
    device: torch.device
    seed: int
    tag: Tagger
    sharing: Sharing
    progress: Progress
    workload: Workload | None = None
    pauses: Callable[[], bool | None] = lambda: None
    deepen: Callable[[Depth], frozenset[str]] = lambda depth: frozenset()

    @property
    def checkpoint(self) -> Callable[[], None]:
        return self.sharing.checkpoint

    @property
    def confirm(self) -> Callable[[Candidate], bool]:
        return self.sharing.confirm


class Search(Protocol):
    """A branch and bound over one case, made of a SearchContext. `gains`: whether it is so much
    nearer to its end than before that no other search need be looked at.
    """

    name: str
    gains: bool

    @property
    def open_share(self) -> float:
        """What is not yet closed, of 1: each split halves a sub-problem."""
        ...

    def run(self) -> SearchEnd:
        """Goes on after a pause. May raise DeadlineReached."""
        ...
