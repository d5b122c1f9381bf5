"""Projected gradient ascent in an L∞ ball: inside training, and to tell how robust it made."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from runner.training.differentiable import ball


def ascend(
    objective: Callable[[Tensor], Tensor],
    images: Tensor,
    radius: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Points of the ball where `objective` is large: sign steps from a random start (Madry et al.).

    A step is 2.5 radii by the number of steps, so that every point of the ball can be reached.
    """
    box = ball(images, radius)
    share = torch.rand(images.shape, generator=generator)
    x = box.lower + share * (box.upper - box.lower)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x), x)
        x = x.detach() + 2.5 * radius / steps * gradient.sign()
        x = torch.minimum(torch.maximum(x, box.lower), box.upper)
    return x.detach()


def adversarial(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    radius: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """PGD on the cross-entropy."""
    return ascend(
        lambda x: nn.functional.cross_entropy(network(x), labels, reduction="sum"),
        images,
        radius,
        steps,
        generator,
    )


def misled(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    radius: float,
    *,
    steps: int,
    restarts: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Which images [B] some restart of PGD leads to another class, and to where [B, *shape]."""
    found = torch.zeros(len(images), dtype=torch.bool)
    points = images.clone()
    for _ in range(restarts):
        x = adversarial(network, images, labels, radius, steps, generator)
        with torch.no_grad():
            wrong = network(x).argmax(1) != labels
        points[wrong & ~found] = x[wrong & ~found]
        found |= wrong
    return found, points
