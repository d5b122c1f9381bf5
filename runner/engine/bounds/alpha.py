"""α-CROWN of one block of rows (Xu et al. 2021): its own α, its own objective, then dropped.

Each row's bound depends on that row's α alone, so the sum over a block is optimised without loss
against any other grouping, and α never exists for a whole layer. α is projected to [0, 1] after
each step: behind a clamp, torch >= 2.14 gives it no gradient at the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.ascent import LEAST, ProjectedAdam
from runner.engine.bounds.backward import Frontier, Relaxations, advance, concretize
from runner.engine.bounds.checkpoint import advance_in_segments
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.mixed import Parametrised
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.relu import ReluRelaxation
from runner.engine.bounds.tagging import Tagger


@dataclass(frozen=True)
class AlphaSettings:
    """Adam with a decaying step, and a shorter memory than usual: α is chosen in few iterations.

    Measured on MNIST-FC prop_1_0.03 (256x2, 256x4, 256x6): -1.678, -2.304, -383.4, against
    -1.681, -2.315, -395.0 with α,β-CROWN's step 0.5 and Adam's default momenta.
    `least`: as a share of the row's bound, the gradient that is told from its rounding; ranks
    that sum in another order then choose the same α.
    `checkpoint`: compute what the gradient needs again instead of keeping it.
    """

    iterations: int = 20
    step: float = 0.25
    decay: float = 0.98
    momenta: tuple[float, float] = (0.7, 0.9)
    least: float = 1e-5
    checkpoint: bool = False


def optimized_slopes(
    network: BoundNetwork,
    frontier: Frontier,
    relaxations: Relaxations,
    unstable: AbstractSet[str],
    box: Interval,
    settings: AlphaSettings,
    tag: Tagger,
    enough: Callable[[Tensor], bool],
    finished: Callable[[bool], bool],
    *,
    relus_alone: bool = False,
) -> dict[str, Tensor]:
    """For each row, the slopes [S, B, U] by node of the iteration with its best bound.

    Nothing is charged for rounding here: one more pass with these slopes is the proof.

    `unstable`: the ReLU nodes that have an unstable neuron, on whichever rank.
    `enough` is asked between iterations with the best bounds so far; once true they are final,
    and the search ends as soon as `finished`, given that, agrees. `relus_alone`: all that is no
    ReLU keeps its lines.
    """
    with torch.no_grad(), tag.kind(Memory.A):
        # The way to the first relaxed node does not depend on α: it is gone once.
        fixed = advance(network, frontier, relaxations, {}, stop_at_relaxed=True)
    with tag.kind(Memory.ALPHA):
        slopes = _initial_slopes(fixed, relaxations, unstable, relus_alone)
        found = {name: slope.detach().clone() for name, slope in slopes.items()}
    if not slopes:
        return {}
    ascent = ProjectedAdam(list(slopes.values()), settings.step, settings.decay, settings.momenta)
    best = torch.full_like(fixed.constant, -torch.inf, dtype=box.lower.dtype)
    done = False
    for iteration in range(settings.iterations):
        last = iteration == settings.iterations - 1
        pass_back = advance_in_segments if settings.checkpoint and not last else advance
        with tag.kind(Memory.A), torch.set_grad_enabled(not last):
            bound = concretize(network, pass_back(network, fixed, relaxations, slopes), box)
        if not done:
            with torch.no_grad(), tag.kind(Memory.ALPHA):
                _keep(bound.detach(), slopes, best, found)
            done = not last and enough(best)
        if last or finished(done):
            break
        with tag.kind(Memory.A):
            gradients = torch.autograd.grad(bound.sum(), ascent.values)
        with torch.no_grad(), tag.kind(Memory.ALPHA):
            # The same on all ranks, as the bound is.
            least = settings.least * bound.detach().abs().unsqueeze(2) + LEAST
            ascent.step(gradients, least)
    return found


def _keep(bound: Tensor, slopes: dict[str, Tensor], best: Tensor, found: dict[str, Tensor]) -> None:
    """Writes what is better than before into `best` and `found`."""
    better = bound > best
    torch.where(better, bound, best, out=best)
    for name, slope in slopes.items():
        torch.where(better.unsqueeze(2), slope.detach(), found[name], out=found[name])


def _initial_slopes(
    frontier: Frontier, relaxations: Relaxations, unstable: AbstractSet[str], relus_alone: bool
) -> dict[str, Tensor]:
    """By node. A rank may hold no unstable neuron of a node: its α is then empty, but there."""
    rows = frontier.constant.shape[0]
    slopes = {}
    for node in frontier.todo:
        relaxation = relaxations.get(node.name)
        if isinstance(relaxation, ReluRelaxation) and node.name in unstable:
            slopes[node.name] = relaxation.initial_slopes(rows).requires_grad_()
        elif isinstance(relaxation, Parametrised) and not relus_alone:
            slopes[node.name] = relaxation.initial(rows).requires_grad_()
    return slopes
