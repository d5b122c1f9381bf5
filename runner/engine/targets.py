"""Which disjunct of which case a point or a proof is about.

Attacks, bounds and searches name by it what they have found or closed, and confirmations what they
are to replay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.problem.property.model import Property


@dataclass(frozen=True)
class Target:
    """One disjunct of one case."""

    case: int
    disjunct: int


# A flat point, and the target that it may be a counterexample to.
Candidate = tuple[NDArray[np.floating], Target]


def targets_of(instance: Property) -> list[Target]:
    """Every disjunct of every case."""
    return [
        Target(index, disjunct)
        for index, case in enumerate(instance.cases)
        for disjunct in range(len(case.unsafe))
    ]


def by_case(targets: list[Target]) -> dict[int, list[Target]]:
    """In the order of the first of each."""
    found: dict[int, list[Target]] = {}
    for target in targets:
        found.setdefault(target.case, []).append(target)
    return found
