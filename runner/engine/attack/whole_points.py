"""Boxes that are a point but for few inputs which reach over whole numbers: as a rule, places in an
image, of which a network takes the whole part. There are finitely many, and all of them are tried.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from runner.problem.property.model import Case

# Points of a box that are tried, and what may be wide of an input that is as good as given.
MOST_POINTS = 4096
GIVEN = 1e-5


def whole_points(case: Case) -> NDArray[np.float64]:
    """Points [N, inputs] of the box; none where it is of another kind, or they are too many."""
    none = np.zeros((0, len(case.lower)))
    width = case.upper - case.lower
    free = np.flatnonzero(width > GIVEN * (1 + np.abs(case.lower)))
    if not len(free) or not (np.abs(case.lower[free]) + width[free] < MOST_POINTS).all():
        return none
    ranges = [np.arange(np.ceil(case.lower[i]), np.floor(case.upper[i]) + 1) for i in free]
    count = np.prod([float(len(values)) for values in ranges])
    if any(len(values) < 2 for values in ranges) or count > MOST_POINTS:
        return none
    points = np.repeat((case.lower + width / 2)[None], int(count), axis=0)
    points[:, free] = np.array(list(itertools.product(*ranges)))
    return points
