"""An attack whose starts lie on several ranks, each of which goes down from its own, alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from runner.engine.attack.pgd import MOST_ENDS, Attack, AttackSettings
from runner.engine.search.sharing import Sharing
from runner.engine.targets import Target


class SharedAttack:
    """`attack`: of this rank's part, whose checkpoint and candidates are those of `sharing`.

    Ranks meet after each search: then all know whether one of them has a counterexample, and the
    same points that came nearest.
    """

    def __init__(self, attack: Attack, sharing: Sharing) -> None:
        self._attack = attack
        self._sharing = sharing

    @property
    def ends(self) -> list[tuple[Target, Tensor]]:
        """As of Attack; the same on all ranks."""
        return self._attack.ends

    @property
    def precise(self) -> bool:
        """As of Attack."""
        return self._attack.precise

    @precise.setter
    def precise(self, precise: bool) -> None:
        self._attack.precise = precise

    def search(self, targets: list[Target], settings: AttackSettings, until: float) -> bool:
        """Whether a confirmed counterexample was found before that share of the time is over.
        Raises DeadlineReached on all ranks.
        """
        known = list(self._attack.nearest)
        found = self._together(partial(self._attack.search, targets, settings), until)
        if not found and self._sharing.ranks > 1:
            self._learn(list(dict.fromkeys([*known, *targets])))
        return found

    def search_whole(self, targets: list[Target], until: float) -> bool:
        """The same among finitely many points."""
        return self._together(partial(self._attack.search_whole, targets), until)

    def _together(self, search: Callable[[Callable[[], bool]], bool], until: float) -> bool:
        with self._sharing.round():
            search(lambda: self._sharing.passed(until))
        return self._sharing.meet(0, torch.zeros(0, dtype=torch.float64), None).found

    def _learn(self, targets: list[Target]) -> None:
        """What all ranks came nearest to, in place of what this one did."""
        mine, blank = self._attack.nearest, self._attack.blank
        distances = [mine[target][0] if target in mine else math.inf for target in targets]
        least, winner = self._sharing.gather(torch.tensor(distances, dtype=torch.float64)).min(0)
        chosen = [at for at in least.argsort(stable=True).tolist() if least[at] < math.inf]
        chosen = chosen[:MOST_ENDS]
        if not chosen:
            return
        points = [mine.get(targets[at], (math.inf, blank))[1] for at in chosen]
        of_ranks = self._sharing.gather(torch.stack(points))
        self._attack.nearest = {
            targets[at]: (float(least[at]), of_ranks[winner[at], number])
            for number, at in enumerate(chosen)
        }
