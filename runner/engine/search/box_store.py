"""The open boxes of an input split: many at a time, and how one is cut."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval

# Below this many boxes the worst come first; above, the newest, so that the store stays small.
SORTED_BOXES = 8192


@dataclass(frozen=True)
class Boxes:
    """N boxes, flat. `margins` [N, disjuncts]: the best so far, inf where the disjunct is closed.

    `known`: bounds [N, neurons] of the start nodes, side by side, that hold in each box. `way` [N]:
    how it was cut from its parent (`Cut`), -1 where it was not.
    """

    lower: Tensor
    upper: Tensor
    margins: Tensor
    depth: Tensor
    known_lower: Tensor
    known_upper: Tensor
    way: Tensor

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def open(self) -> Tensor:
        """[N, disjuncts]."""
        return self.margins < torch.inf

    @property
    def worst(self) -> Tensor:
        """[N]: the least margin of each box."""
        return self.margins.amin(1)

    def select(self, index: Tensor | slice) -> Self:
        """By number, by mask or by place."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def interval(self, shape: tuple[int, ...]) -> Interval:
        return Interval(self.lower.reshape(-1, *shape), self.upper.reshape(-1, *shape))


B = TypeVar("B", bound=Boxes)


def middles(boxes: Boxes) -> Tensor:
    """[N, inputs]: where an input would be cut, always within its limits."""
    middle = boxes.lower + (boxes.upper - boxes.lower) / 2
    return torch.minimum(torch.maximum(middle, boxes.lower), boxes.upper)


def divisible(boxes: Boxes) -> Tensor:
    """[N, inputs]: whether a float32 lies between the limits."""
    middle = middles(boxes)
    return (boxes.lower < middle) & (middle < boxes.upper)


def halves(boxes: B, at: Tensor) -> B:
    """Cuts input `at` [N] of each box. Both halves keep the cut, so together they are the box."""
    index = at[:, None]
    cut = middles(boxes).gather(1, index)
    deeper = replace(boxes, depth=boxes.depth + 1)
    left = replace(deeper, upper=boxes.upper.scatter(1, index, cut))
    right = replace(deeper, lower=boxes.lower.scatter(1, index, cut))
    return boxes.joined([left, right])


class BoxStore(Generic[B]):
    """Boxes still to be decided: of up to so many `sorted_boxes` the worst come first."""

    def __init__(self, sorted_boxes: int = SORTED_BOXES) -> None:
        self._parts: list[B] = []
        self._sorted = sorted_boxes

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def share(self) -> float:
        """What the boxes have of the root, if each cut halves."""
        return float(sum((0.5 ** part.depth.double()).sum() for part in self._parts))

    def least_margins(self, closed: Tensor) -> Tensor:
        """Of each disjunct [disjuncts], over all boxes and what the closed ones had."""
        return torch.stack([closed, *(part.margins.amin(0) for part in self._parts)]).amin(0)

    def put(self, boxes: B) -> None:
        if len(boxes):
            self._parts.append(boxes)

    def take(self, count: int) -> B:
        """At most so many; raises IndexError when there are none."""
        # A part that is split up often is small: several make up a batch.
        wanted = len(self) if len(self) <= self._sorted else count
        parts = [self._parts.pop()]
        while self._parts and sum(map(len, parts)) < wanted:
            parts.insert(0, self._parts.pop())
        newest = parts[0].joined(parts) if len(parts) > 1 else parts[0]
        if len(newest) <= count:
            return newest
        order = newest.worst.argsort(stable=True)
        self._parts.append(newest.select(order[count:]))
        return newest.select(order[:count])

    def give(self, count: int) -> B:
        """So many; every second of the most urgent, so that those that stay are worth as much."""
        parts: list[B] = []
        while count:
            taken = self.take(2 * count)
            chosen = torch.zeros(len(taken), dtype=torch.bool)
            chosen[: 2 * count : 2] = True
            parts.append(taken.select(chosen))
            self.put(taken.select(~chosen))
            count -= len(parts[-1])
        return parts[0].joined(parts)
