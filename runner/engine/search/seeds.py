"""Counterexamples from branch and bound: the points where linear bounds of domains are least."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.search.search import SearchContext
from runner.engine.targets import Target

STEPS = 6
# Of a step, as a share of the box's radius; halved each time.
FIRST_STEP = 0.2


@dataclass(frozen=True)
class Seeds:
    """Points x [W, *input], and of each the disjunct [W], rows [K, W, outputs] and limits [K, W]:
    its unsafe region is where all rows are at most their limits.
    """

    x: Tensor
    disjunct: Tensor
    rows: Tensor
    limits: Tensor


def minimiser(network: BoundNetwork, inputs: Tensor, within: Interval) -> Tensor:
    """Where A · x is least in the box, [W, *input]; inputs: this rank's columns of A."""
    rows = network.whole(network.graph.input.name, inputs, 1)
    return torch.where(rows > 0, within.lower, within.upper)


def search(context: SearchContext, seeds: Seeds) -> bool:
    """Whether a point on the way down from a seed is a confirmed counterexample."""
    lower, upper = context.within.lower, context.within.upper
    radius = (upper - lower) / 2
    x = seeds.x
    with context.tag.kind(Memory.OTHER):
        for step in range(STEPS):
            context.checkpoint()
            x = x.detach().requires_grad_()
            outputs = context.network.forward(x)
            excess = torch.einsum("kwo,wo->wk", seeds.rows, outputs) - seeds.limits.T
            if _confirmed(context, x.detach(), excess.detach().amax(1), seeds.disjunct):
                return True
            (gradient,) = torch.autograd.grad(excess.clamp(min=0).sum(), x)
            x = x.detach() - FIRST_STEP * 0.5**step * radius * gradient.sign()
            x = torch.minimum(torch.maximum(x, lower), upper)
    return False


def _confirmed(context: SearchContext, x: Tensor, worst: Tensor, disjunct: Tensor) -> bool:
    """The deepest candidate of each disjunct is replayed."""
    tried: set[int] = set()
    for index in worst.argsort().tolist():
        number = int(disjunct[index])
        if float(worst[index]) <= 0 and number not in tried:
            tried.add(number)
            if context.confirm((x[index].flatten().cpu().numpy(), Target(context.number, number))):
                return True
    return False
