"""How long a search goes on before another way is tried: as long as it gains."""

from __future__ import annotations

import math

# Of the gap, what may be left when the domains have doubled.
MOST_LEFT = 0.8


class Trial:
    """The margin that is missing, looked at whenever the domains visited have doubled.

    The first look at `domains` that can end the trial; half of them before, one to compare with.
    A trial of none ends at once.
    """

    def __init__(self, domains: int) -> None:
        self._next = domains // 2
        self._gap = math.inf if domains else 0.0

    def due(self, visited: int) -> bool:
        return visited >= self._next

    def stalls(self, visited: int, gap: float) -> bool:
        """Whether the last doubling gained too little; to be asked when it is due."""
        stalled = gap > MOST_LEFT * self._gap
        self._next, self._gap = 2 * visited, gap
        return stalled
