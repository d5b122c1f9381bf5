"""Our differentiable bounds beside auto_LiRPA's: `python scripts/training_bounds.py`.

One batch of 128 images through an MLP 784-256-256-10, margins forward and their gradient backward;
seconds of CPU on one thread, the least of some repeats, and the greatest difference of margins.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import torch
from torch import Tensor

from runner.engine.network.lirpa import BoundedModule, BoundedTensor, PerturbationLpNorm
from runner.training.categories.networks import mlp
from runner.training.differentiable import Bound, ball, margins

BATCH, RADIUS, REPEATS = 128, 0.1, 7


def seconds(compute: Callable[[], Tensor]) -> float:
    spent = []
    for _ in range(REPEATS):
        start = process_time()
        compute().sum().backward()  # type: ignore[no-untyped-call]
        spent.append(process_time() - start)
    return min(spent)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = mlp(784, 256, 256, 10)
    images, labels = torch.rand(BATCH, 784), torch.arange(BATCH) % 10
    rows = torch.eye(10)[labels][:, None] - torch.eye(10)
    bounded = BoundedModule(network, images[:2])
    box = ball(images, RADIUS)
    around = PerturbationLpNorm(norm=float("inf"), x_L=box.lower, x_U=box.upper)

    def theirs(bound: Bound) -> Tensor:
        inputs = (BoundedTensor(images, around),)
        backward = "backward" if bound is Bound.CROWN_IBP else None
        if backward:
            bounded.compute_bounds(inputs, IBP=True, method=None, C=rows, bound_upper=False)
        lower, _ = bounded.compute_bounds(
            inputs, IBP=True, method=backward, C=rows, bound_upper=False
        )
        return torch.as_tensor(lower)

    for bound in Bound:
        ours = seconds(lambda bound=bound: margins(network, images, labels, RADIUS, bound))  # type: ignore[misc]
        other = seconds(lambda bound=bound: theirs(bound))  # type: ignore[misc]
        apart = margins(network, images, labels, RADIUS, bound) - theirs(bound)
        print(  # noqa: T201
            f"{bound}: ours {1000 * ours:.0f} ms, auto_LiRPA {1000 * other:.0f} ms, "
            f"margins differ by at most {float(apart.abs().max()):.1g}"
        )


if __name__ == "__main__":
    main()
