"""An attack from the worst open boxes of an input split: small boxes, and steps as small.

A region that PGD over the whole box misses may be a millionth of it. The boxes that resist longest
are those that touch it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.attack.pgd import Target
from runner.engine.search.box_store import Boxes, middles
from runner.engine.search.disjuncts import Disjuncts
from runner.engine.search.search import SearchContext
from runner.engine.specs import Specs

# Boxes, and steps from the centre and the nearest corner of each.
WORST, STEPS = 32, 12
# Of a step, in radii of the box; the last one is smaller by `LAST`.
FIRST, LAST = 0.5, 0.02
# Boxes that are bounded between two attacks: as many take many times as long.
EVERY = 1024


class BoxAttack:
    """Points may leave their boxes, and not the case's. Of its disjuncts those of `numbers`."""

    def __init__(self, context: SearchContext, specs: Specs, numbers: Tensor) -> None:
        self._context, self._specs, self._numbers = context, specs, numbers
        self._disjuncts = Disjuncts(specs)
        self._waiting = 0

    def due(self, bounded: int) -> bool:
        """After so many more boxes."""
        self._waiting += bounded
        if self._waiting < EVERY:
            return False
        self._waiting = 0
        return True

    def found(self, boxes: Boxes, corners: Tensor) -> bool:
        """Whether one of the worst leads to a confirmed counterexample."""
        worst = boxes.worst.argsort(stable=True)[:WORST]
        boxes, corners = boxes.select(worst), corners[worst]
        context = self._context
        with context.tag.kind(Memory.OTHER):
            within = context.within.reshape(1, -1)
            low, high = within.lower, within.upper
            disjunct = boxes.margins.argmin(1).repeat(2)
            radius = ((boxes.upper - boxes.lower) / 2).to(low).repeat(2, 1)
            x = torch.cat([middles(boxes), corners]).to(low).maximum(low).minimum(high)
            for step in range(STEPS):
                context.checkpoint()
                x = x.detach().requires_grad_()
                excess = self._excess(x, disjunct)
                least = excess.detach().nan_to_num(torch.inf)
                if float(least.min()) <= 0 and self._confirmed(x.detach(), least, disjunct):
                    return True
                (gradient,) = torch.autograd.grad(excess.sum(), x)
                size = FIRST * (LAST / FIRST) ** (step / (STEPS - 1))
                x = (x.detach() - size * radius * gradient.sign()).maximum(low).minimum(high)
        return False

    def _excess(self, x: Tensor, disjunct: Tensor) -> Tensor:
        """How far outputs of points [M] are outside of their region [M]; at most 0 inside."""
        shape = self._context.network.graph.input.shape
        outputs = self._context.network.forward(x.reshape(-1, *shape)).double()
        excess = outputs @ self._specs.rows.T - self._specs.limits
        return self._disjuncts.best(excess).gather(1, disjunct[:, None])[:, 0]

    def _confirmed(self, x: Tensor, excess: Tensor, disjunct: Tensor) -> bool:
        index = int(excess.argmin())
        target = Target(self._context.number, int(self._numbers[disjunct[index]]))
        return self._context.confirm((x[index].cpu().numpy(), target))
