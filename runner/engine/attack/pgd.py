"""PGD with restarts (Madry et al. 2018) on every open disjunct of every case at once.

Starts are diversified in output space first (ODI, Tashiro et al. 2020): from random points alone,
PGD stays in one flat region of the MNIST-FC networks and misses 2 of their 18 counterexamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.attack.region import Region
from runner.engine.attack.whole_points import whole_points
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.tagging import Tagger
from runner.engine.specs import boxes_within
from runner.engine.targets import Candidate, Target, by_case
from runner.problem.property.model import Property

# Targets whose nearest points are told.
MOST_ENDS = 64
# Disjuncts of a case that each point is held against, whichever it was made for.
MOST_OTHERS = 256
NEAREST_STEPS = 40
# Of a round, over all targets: thousands of boxes are small, and three of their points say much.
MOST_STARTS = 640
# Values of all nodes that one batch of points may keep for its gradient, in bytes; of a core.
BATCH_BYTES = 16 * 1024 * 1024
# As many more points without one.
WITHOUT_GRADIENT = 8


class Goal(StrEnum):
    """What the steps of a point go down on."""

    OWN = "own"
    """What the constraints of its own target miss; before, once, the nearest."""
    NEAREST = "nearest"
    """What the nearest target of its box misses: the margin of Carlini and Wagner (2017)."""
    CROSS_ENTROPY = "cross-entropy"
    """All targets of its box, as where they are the other classes (Madry et al. 2018)."""


@dataclass(frozen=True)
class AttackSettings:
    """`first_step` and `last_step` are fractions of the box's radius; `diversify`: ODI steps.

    `descents`: from each start; the guide moves points between them.
    """

    restarts: int
    steps: int
    diversify: int = 5
    first_step: float = 0.5
    last_step: float = 0.01
    goal: Goal = Goal.OWN
    descents: int = 1

    def size(self, step: int) -> float:
        """Of one step: geometric from the first to the last."""
        progress = step / max(1, self.steps - 1)
        return float(self.first_step * (self.last_step / self.first_step) ** progress)


def _never() -> bool:
    return False


@dataclass(frozen=True)
class AttackPart:
    """Of all starts or targets every `of`-th, from `first` on: what one of `of` ranks attacks."""

    first: int = 0
    of: int = 1

    @property
    def slice(self) -> slice:
        return slice(self.first, None, self.of)


EVERYTHING = AttackPart()


class Attackable(Protocol):
    """A network: `neurons` are those of all its layers."""

    input_shape: tuple[int, ...]
    neurons: int
    budget: Budget

    def forward(self, x: Tensor) -> Tensor: ...

    def exact(self, x: Tensor) -> Tensor:
        """In float64, as exact as that is."""
        ...


class Guide(Protocol):
    """Moves points out of where gradients lead nowhere."""

    def __call__(self, x: Tensor, lower: Tensor, upper: Tensor, region: Region) -> Tensor:
        """Points [T, R, *input] of boxes [T, *input], to other points of these."""
        ...


class Attack:
    """Searches for inputs in a target's box whose outputs meet all of its constraints.

    Ranks of one `part` search the same points: the seed is the same, and so is every value.
    `confirm` is asked for each candidate; `checkpoint` between steps, and it may raise.
    `nearest`: how near to its region a target was come, and the point [*input] it was at.
    """

    def __init__(
        self,
        network: Attackable,
        instance: Property,
        device: torch.device,
        seed: int,
        tag: Tagger,
        checkpoint: Callable[[], None],
        confirm: Callable[[Candidate], bool],
        dtype: torch.dtype = torch.float32,
        guide: Guide | None = None,
        part: AttackPart = EVERYTHING,
    ) -> None:
        """`dtype`: of the network's inputs. `guide`: between descents. `precise`: outputs are
        computed in float64, where the network rounds so much that float32 leads nowhere. `part`:
        of the starts of each target; of the targets, where there are not enough of these.
        """
        self._dtype = dtype
        self._part = part
        self.precise = False
        self.nearest: dict[Target, tuple[float, Tensor]] = {}
        self._network = network
        self._property = instance
        self._device = device
        self._generator = torch.Generator().manual_seed(seed)
        self._tag = tag
        self._checkpoint = checkpoint
        self._confirm = confirm
        self._guide = guide

    @property
    def blank(self) -> Tensor:
        """Zeros [*input], of the type and on the device of points."""
        return torch.zeros(self._network.input_shape, dtype=self._dtype, device=self._device)

    @property
    def ends(self) -> list[tuple[Target, Tensor]]:
        """The points [*input] that came nearest to a target's region; of many targets, some."""
        nearest = sorted(self.nearest.items(), key=lambda item: item[1][0])
        return [(target, point) for target, (_, point) in nearest[:MOST_ENDS]]

    def search(
        self, targets: list[Target], settings: AttackSettings, ended: Callable[[], bool] = _never
    ) -> bool:
        """Whether a confirmed counterexample was found. One round: one start of each restart.
        `ended` is asked between steps, the same on every rank: whether to give up.
        """
        most = max(1, MOST_STARTS // max(1, len(targets)))
        settings = replace(settings, restarts=min(settings.restarts, most))
        part = self._part
        if settings.goal is not Goal.OWN:
            return any(
                self._search_batch(rest[:1], rest[:MOST_OTHERS], settings, ended, part)
                for rest in by_case(targets).values()
            )
        others = self._others(targets, targets)
        # All targets at the price of one: worth more steps.
        steps = max(NEAREST_STEPS, settings.steps)
        nearest = replace(settings, goal=Goal.NEAREST, steps=steps)
        if others and self._search_batch(others[:1], others, nearest, ended, part):
            return True
        if settings.restarts < part.of:
            targets, part = targets[part.slice], EVERYTHING
        room = self._network.budget.scaled(BATCH_BYTES)
        starts = -(-settings.restarts // part.of)
        fits = max(1, room // (4 * self._network.neurons * starts))
        for first in range(0, len(targets), fits):
            batch = targets[first : first + fits]
            if self._search_batch(batch, self._others(batch, targets), settings, ended, part):
                return True
            if ended():
                return False
        return False

    def search_whole(self, targets: list[Target], ended: Callable[[], bool]) -> bool:
        """Whether one of the points that `whole_points` gives is a confirmed counterexample.
        `ended` is asked between some of them, the same on every rank: whether to give up.
        """
        for case, mine in by_case(targets).items():
            points = whole_points(self._property.cases[case])[self._part.slice]
            if len(points) and self._is_one_of(points, mine, ended):
                return True
        return False

    @torch.no_grad()
    def _is_one_of(
        self, points: NDArray[np.float64], targets: list[Target], ended: Callable[[], bool]
    ) -> bool:
        # Nothing is kept for a gradient.
        room = WITHOUT_GRADIENT * self._network.budget.scaled(BATCH_BYTES)
        at_once = max(1, room // (4 * self._network.neurons))
        with self._tag.kind(Memory.OTHER):
            batch = self._batch(targets[:1], targets)
            shape = self._network.input_shape
            for some in torch.from_numpy(points).split(at_once):
                if ended():
                    return False
                x = some.to(self._device, self._dtype).reshape(-1, *shape)
                x = torch.minimum(torch.maximum(x, batch.lower), batch.upper)
                if self._reached(x[None], self._network.forward(x)[None], batch):
                    return True
        return False

    def _others(self, batch: list[Target], targets: list[Target]) -> list[Target]:
        """Targets in the box of the whole batch: a point may reach another one than its own."""
        # Of boxes by the thousand, each batch would look at all.
        if len({target.case for target in batch}) != 1:
            return []
        case = batch[0].case
        others = [target for target in targets if target.case == case]
        return others if 1 < len(others) <= MOST_OTHERS else []

    def _search_batch(
        self,
        targets: list[Target],
        others: list[Target],
        settings: AttackSettings,
        ended: Callable[[], bool],
        part: AttackPart,
    ) -> bool:
        with self._tag.kind(Memory.OTHER):
            batch = self._batch(targets, others)
            x = self._starts(batch.lower, batch.upper, settings.restarts)
            direction = self._random(*x.shape[:2], self._property.outputs).to(batch.region.rhs)
            x, direction = x[:, part.slice], direction[:, part.slice]
            if not x.shape[1]:
                return False
            for descent in range(settings.descents):
                turned = replace(settings, diversify=0) if descent else settings
                below = self._descended(batch, x, direction * 2 - 1, turned, ended)
                if below is None:
                    return True
                x = below
                if self._guide is not None and descent + 1 < settings.descents:
                    self._checkpoint()
                    x = self._guide(below, batch.lower, batch.upper, batch.region)
        for target, distance, point in zip(
            targets, batch.nearest.tolist(), batch.points, strict=True
        ):
            if distance < self.nearest.get(target, (math.inf, point))[0]:
                self.nearest[target] = distance, point
        return False

    def _batch(self, targets: list[Target], others: list[Target]) -> _Batch:
        def region(of: list[Target]) -> Region:
            cases, dtype = self._property.cases, torch.float64 if self.precise else self._dtype
            return Region.of([cases[t.case].unsafe[t.disjunct] for t in of], self._device, dtype)

        lower, upper = self._boxes(targets)
        own, beside = region(targets), region(others) if others else None
        nearest = own.rhs.new_full((len(targets),), torch.inf)
        return _Batch(targets, others, lower, upper, own, beside, nearest, lower)

    def _descended(
        self,
        batch: _Batch,
        x: Tensor,
        direction: Tensor,
        settings: AttackSettings,
        ended: Callable[[], bool],
    ) -> Tensor | None:
        """Where points [T, R, *input] end; None where one of them is a counterexample."""
        lower, upper, region = batch.lower[:, None], batch.upper[:, None], batch.region
        radius = (upper - lower) / 2
        forward = self._network.exact if self.precise else self._network.forward
        for step in range(settings.diversify + settings.steps + 1):
            self._checkpoint()
            here, x = x, x.detach().requires_grad_()
            outputs = forward(x.flatten(0, 1)).reshape(*x.shape[:2], -1)
            excess = region.excess(outputs)
            worst = region.worst(excess.detach())
            if self._confirmed(here, worst, batch.targets):
                return None
            if self._reached(here, outputs.detach(), batch):
                return None
            batch.nearest, batch.points = _nearer(batch.nearest, batch.points, worst, here)
            if ended():
                return here
            diversify = step < settings.diversify
            goal = (
                (direction * outputs).sum()
                if diversify
                else _loss(settings.goal, batch.beside, outputs, excess)
            )
            (gradient,) = torch.autograd.grad(goal, x)
            size = 1.0 if diversify else settings.size(step - settings.diversify)
            x = here - size * radius * gradient.sign()
            x = torch.minimum(torch.maximum(x, lower), upper)
        return x

    def _confirmed(self, x: Tensor, worst: Tensor, targets: list[Target]) -> bool:
        """One candidate of a target a step, the one that is deepest inside its region."""
        least, restart = worst.min(1)
        for index in (least <= 0).nonzero()[:, 0].tolist():
            point = x[index, restart[index]].flatten().cpu().numpy()
            if self._confirm((point, targets[index])):
                return True
        return False

    def _reached(self, x: Tensor, outputs: Tensor, batch: _Batch) -> bool:
        """Whether any point of one box is a counterexample to any of its disjuncts."""
        if batch.beside is None:
            return False
        count = len(batch.others)
        every = outputs.flatten(0, 1).expand(count, -1, -1)
        return self._confirmed(
            x.flatten(0, 1).expand(count, *(-1,) * (x.dim() - 1)),
            batch.beside.worst(batch.beside.excess(every)),
            batch.others,
        )

    def _boxes(self, targets: list[Target]) -> tuple[Tensor, Tensor]:
        shape = self._network.input_shape
        cases = self._property.cases
        position = {case: at for at, case in enumerate(dict.fromkeys(t.case for t in targets))}
        chosen = [cases[case] for case in position]
        boxes = boxes_within(chosen, shape, self._device, self._dtype)
        at = torch.tensor([position[target.case] for target in targets], device=self._device)
        return boxes.lower[at], boxes.upper[at]

    def _starts(self, lower: Tensor, upper: Tensor, restarts: int) -> Tensor:
        """[T, restarts, *input]: the centre, both extreme corners, then a level with noise."""
        ones = (1,) * (lower.dim() - 1)
        level = self._random(lower.shape[0], restarts, *ones)
        width = self._random(lower.shape[0], restarts, *ones)
        noise = self._random(lower.shape[0], restarts, *lower.shape[1:]) - 0.5
        share = (level + width * noise).clamp(0, 1)
        for index, extreme in enumerate((0.5, 0.0, 1.0)[:restarts]):
            share[:, index] = extreme
        x = lower[:, None] + share * (upper - lower)[:, None]
        return torch.minimum(torch.maximum(x, lower[:, None]), upper[:, None])

    def _random(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), the same on every device."""
        return torch.rand(shape, generator=self._generator).to(self._device, self._dtype)


def _nearer(nearest: Tensor, points: Tensor, worst: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of T targets, the least of `nearest` [T] and of worst [T, R], and the points they are at."""
    least, restart = worst.min(1)
    found = x[torch.arange(len(x), device=x.device), restart]
    better = (least < nearest).reshape(-1, *(1,) * (found.dim() - 1))
    return torch.minimum(least, nearest), torch.where(better, found, points)


@dataclass
class _Batch:
    """T targets that are searched at once, in boxes [T, *input]. `others`: all of one box, with
    what they ask, `beside`. `nearest` and `points`: how near to each target was come [T], and
    where.
    """

    targets: list[Target]
    others: list[Target]
    lower: Tensor
    upper: Tensor
    region: Region
    beside: Region | None
    nearest: Tensor
    points: Tensor


def _loss(goal: Goal, beside: Region | None, outputs: Tensor, excess: Tensor) -> Tensor:
    if goal is Goal.OWN or beside is None:
        return excess.clamp(min=0).sum()
    return (beside.nearest if goal is Goal.NEAREST else beside.cross_entropy)(outputs).sum()
