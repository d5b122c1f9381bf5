"""How far ONNX Runtime is from real arithmetic where a proof speaks: at points of the boxes.

A proof is about real arithmetic on the file's weights. VNN-COMP replays on ONNX Runtime, which may
say otherwise where margins are small: what is nearer to its limit than SAFETY times the largest
difference that was seen is not called `unsat`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.attack.pgd import Attackable
from runner.engine.bounds.interval import Interval
from runner.engine.specs import Specs, box_within
from runner.engine.targets import Candidate, Target
from runner.problem.property.model import Property

SAFETY = 4.0
# Points that are compared: of all boxes together, and of each box that is chosen at least.
POINTS, LEAST_POINTS = 100, 3
# Rows whose worst corner, as the gradient at the centre sees it, is among the points.
CORNERS = 32
# Values of all nodes that one batch of points may take, in bytes; of a core.
BATCH_BYTES = 2 * 1024 * 1024

# Flat points [points, inputs] and the number of outputs, to outputs [points, outputs] of ONNX
# Runtime, the same on all ranks.
Replay = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Nearest:
    """Of one target: how far the hardest of the points is above its limits, in float64, by the row
    that is furthest above, and what a proof must exceed of that row. `decides`: whether a proof
    may count there, of whichever row.
    """

    margin: float
    room: float
    decides: bool

    def __str__(self) -> str:
        difference = self.room / SAFETY
        return (
            f"a point of the box has a margin of {self.margin:.3g}, and ONNX Runtime differs from "
            f"exact arithmetic by up to {difference:.3g}: at most {SAFETY:g} times that decides "
            "nothing"
        )


@dataclass(frozen=True)
class Agreement:
    """`differences` [points, outputs]: of ONNX Runtime's outputs and float64's. `nearest`: of
    the targets whose boxes were looked at. `reached`: points whose outputs on ONNX Runtime meet
    their target.
    """

    differences: Tensor
    nearest: dict[Target, Nearest]
    reached: list[Candidate]

    def room(self, rows: Tensor) -> Tensor:
        """By how much more than its limit each row [S, outputs] must be proved to lie above it."""
        return _room(self.differences, rows)


def _room(differences: Tensor, rows: Tensor) -> Tensor:
    """inf where a difference is no number: then nothing is known of ONNX Runtime."""
    largest = (differences @ rows.T).abs().amax(0)
    return SAFETY * largest.nan_to_num(nan=torch.inf)


def compare(
    network: Attackable,
    instance: Property,
    attacked: Sequence[tuple[Target, Tensor]],
    replay: Replay,
    dtype: torch.dtype,
    checkpoint: Callable[[], None],
) -> Agreement:
    """At points of every box: its centre, corners, points at random, and where an attack ended
    (`attacked`: points [*input] in the box of their target). The same on every rank. `dtype`: of
    the network's inputs; `checkpoint` may raise.
    """
    by_case: dict[int, list[Tensor]] = {number: [] for number in _chosen(len(instance.cases))}
    for target, point in attacked:
        by_case.setdefault(target.case, []).append(point)
    count = max(LEAST_POINTS, math.ceil(POINTS / max(1, len(by_case))))
    device = attacked[0][1].device if attacked else torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    points, cases = [], []
    for number, ends in sorted(by_case.items()):
        case = instance.cases[number]
        box = box_within(case, network.input_shape, device, dtype)
        specs = Specs.of(case, device)
        some = [*_drawn(box, count, generator), *ends]
        if len(instance.cases) * len(specs.rows) <= CORNERS:
            some += _worst_corners(network, box, specs)
        points.append(torch.stack(some))
        cases.append(torch.full((len(some),), number))
    return _compared(network, instance, torch.cat(points), torch.cat(cases), replay, checkpoint)


def _chosen(cases: int) -> range:
    """Of many boxes some, spread over all."""
    return range(0, cases, math.ceil(max(1, cases) * LEAST_POINTS / POINTS))


def _drawn(box: Interval, count: int, generator: torch.Generator) -> Tensor:
    """[count, *input]: the centre, then corners and inner points in turn."""
    share = torch.rand((count, *box.lower.shape[1:]), generator=generator).to(box.lower)
    share[1::2] = share[1::2].round()
    share[0] = 0.5
    points = box.lower + share * (box.upper - box.lower)
    return torch.minimum(torch.maximum(points, box.lower), box.upper)


def _worst_corners(network: Attackable, box: Interval, specs: Specs) -> list[Tensor]:
    """Of each row, the corner that lowers it most if the network were linear."""
    if not len(specs.rows):
        return []
    x = box.centre.expand(len(specs.rows), *box.lower.shape[1:]).clone().requires_grad_()
    outputs = network.forward(x)
    (gradient,) = torch.autograd.grad((outputs * specs.rows.to(outputs)).sum(), x)
    return list(torch.where(gradient > 0, box.lower, box.upper))


def _compared(
    network: Attackable,
    instance: Property,
    points: Tensor,
    cases: Tensor,
    replay: Replay,
    checkpoint: Callable[[], None],
) -> Agreement:
    exact = _exact_outputs(network, points, checkpoint)
    given = replay(points.flatten(1), exact.shape[1])
    differences = given.to(exact) - exact
    nearest, reached = {}, []
    for number in cases.unique().tolist():
        specs = Specs.of(instance.cases[number], exact.device)
        mine = (cases == number).to(exact.device).nonzero()[:, 0]
        room = _room(differences, specs.rows)
        of_exact, of_given = (
            values[mine] @ specs.rows.T - specs.limits for values in (exact, given.to(exact))
        )
        for disjunct in range(specs.disjuncts):
            target, rows = Target(number, disjunct), specs.disjunct == disjunct
            nearest[target] = _least(of_exact[:, rows], room[rows])
            if bool(rows.any()):
                worst, point = of_given[:, rows].amax(1).nan_to_num(nan=torch.inf).min(0)
                if float(worst) <= 0:
                    reached.append((points[mine[point]].flatten().cpu().numpy(), target))
    return Agreement(differences, nearest, reached)


def _least(above: Tensor, room: Tensor) -> Nearest:
    """Of margins [points, K] and rooms [K]: the point that is the hardest to prove anything at."""
    if not above.shape[1]:
        return Nearest(-math.inf, 0.0, decides=False)
    least, point = (above - room).nan_to_num(nan=-torch.inf).amax(1).min(0)
    margin, row = above[point].max(0)
    return Nearest(float(margin), float(room[row]), decides=bool(least > 0))


def _exact_outputs(network: Attackable, points: Tensor, checkpoint: Callable[[], None]) -> Tensor:
    """[points, outputs] in float64, whose own rounding is small beside any other."""
    fits = max(1, network.budget.scaled(BATCH_BYTES) // (8 * network.neurons))
    parts: list[Tensor] = []
    with torch.no_grad():
        for some in points.split(fits):
            if parts:
                checkpoint()
            parts.append(network.exact(some))
    return torch.cat(parts)
