"""An attack from the open boxes of an input split, with steps as small as they are.

PGD over the whole box may end on a plateau that is nearly unsafe, from wherever it starts (acasxu
prop_7 on 1_9). What counts here is not how near a point is to the unsafe region, but whether its
gradient would carry it there within the box.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.search.box_store import Boxes, middles
from runner.engine.search.disjuncts import Disjuncts
from runner.engine.search.search import SearchContext
from runner.engine.specs import Specs
from runner.engine.targets import Target

# Points of each box beside its centre and its corner, points that are looked at, and those that
# go on for so many steps.
RANDOM, MOST, STARTS, STEPS = 6, 8192, 384, 20
# How far gradients are trusted, in radii of the box: by turns.
TRUSTED = (0.2, 1.0, 0.05)
# Of that, a step: from the first to the last.
FIRST, LAST = 0.5, 0.01
# Of the rows that were passed back to bound boxes, what an attack may pass, there and back.
SHARE = 0.4


class BoxAttack:
    """Points may leave their boxes, and not the case's. `numbers`: of the disjuncts of `specs` in
    the case.
    """

    def __init__(self, context: SearchContext, specs: Specs, numbers: Tensor) -> None:
        self._context, self._specs, self._numbers = context, specs, numbers
        self._disjuncts = Disjuncts(specs)
        self._random = torch.Generator().manual_seed(context.seed)
        self._saved = 0.0
        self._attacks = 0

    def due(self, boxes: int, work: int) -> bool:
        """Whether bounding took long enough for an attack from so many boxes; `work`: rows that
        have passed a node since it was asked last.
        """
        self._saved += SHARE * work
        points = min(MOST, boxes * (RANDOM + 2)) + STARTS * STEPS
        price = 2 * points * len(self._context.network.graph.nodes)
        if self._saved < price:
            return False
        self._saved = 0.0
        return True

    def found(self, boxes: Boxes, corners: Tensor) -> bool:
        """Whether a point on the way from one of the boxes is a confirmed counterexample."""
        worst = boxes.worst.argsort(stable=True)[: MOST // (RANDOM + 2)]
        boxes, corners = boxes.select(worst), corners[worst]
        within = self._context.within.reshape(1, -1)
        with self._context.tag.kind(Memory.OTHER):
            x = torch.cat([middles(boxes), corners, *(self._drawn(boxes) for _ in range(RANDOM))])
            x = x.to(within.lower).maximum(within.lower).minimum(within.upper)
            disjunct = boxes.margins.argmin(1).repeat(RANDOM + 2)
            trusted = TRUSTED[self._attacks % len(TRUSTED)]
            self._attacks += 1
            radius = ((boxes.upper - boxes.lower) / 2).to(x).repeat(RANDOM + 2, 1) * trusted
            excess, gradient = self._slopes(x, disjunct)
            promise = excess / (gradient.abs() * radius).sum(1).clamp(min=1e-30)
            best = promise.nan_to_num(torch.inf).argsort(stable=True)[:STARTS]
            return self._descends(x[best], disjunct[best], radius[best])

    def _drawn(self, boxes: Boxes) -> Tensor:
        share = torch.rand(boxes.lower.shape, generator=self._random).to(boxes.lower)
        return boxes.lower + share * (boxes.upper - boxes.lower)

    def _descends(self, x: Tensor, disjunct: Tensor, radius: Tensor) -> bool:
        within = self._context.within.reshape(1, -1)
        for step in range(STEPS):
            self._context.checkpoint()
            excess, gradient = self._slopes(x, disjunct)
            index = int(excess.argmin())
            if float(excess[index]) <= 0:
                target = Target(self._context.number, int(self._numbers[disjunct[index]]))
                if self._context.confirm((x[index].cpu().numpy(), target)):
                    return True
            size = FIRST * (LAST / FIRST) ** (step / (STEPS - 1))
            x = x - size * radius * gradient.sign()
            x = x.maximum(within.lower).minimum(within.upper)
        return False

    def _slopes(self, x: Tensor, disjunct: Tensor) -> tuple[Tensor, Tensor]:
        """Of points [M]: how far outside of their region, at most 0 inside, and its gradient."""
        x = x.detach().requires_grad_()
        shape = self._context.network.graph.input.shape
        outputs = self._context.network.forward(x.reshape(-1, *shape)).double()
        excess = outputs @ self._specs.rows.T - self._specs.limits
        excess = self._disjuncts.best(excess).gather(1, disjunct[:, None])[:, 0]
        (gradient,) = torch.autograd.grad(excess.sum(), x)
        return excess.detach().nan_to_num(torch.inf), gradient.nan_to_num(0.0)
