"""How sub-problems are shared out anew: a plan that every rank makes for itself from the counts."""

from __future__ import annotations

# A rank gets at most so many times what is enough: more it may never need.
MOST_TIMES = 16


def moves(counts: list[int], enough: int) -> list[tuple[int, int, int]]:
    """(source, target, count) one after another: ranks that have less than `enough` get up to the
    mean, from those that have the most; no source falls below the mean, and none gives more than
    half of what it has.
    """
    left = list(counts)
    mean = sum(left) // len(left)
    most = min(mean, MOST_TIMES * enough)
    plan = []
    for target in sorted(range(len(left)), key=left.__getitem__):
        while left[target] < min(enough, most):
            source = max(range(len(left)), key=left.__getitem__)
            count = min(most - left[target], left[source] - mean)
            if count <= 0:
                break
            left[source] -= count
            left[target] += count
            plan.append((source, target, count))
    return plan
