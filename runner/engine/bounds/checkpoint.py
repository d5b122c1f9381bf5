"""The backward pass with less kept for α's gradient: what a segment needs is computed again."""

from __future__ import annotations

from itertools import pairwise
from math import isqrt

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from runner.engine.bounds.backward import Frontier, Relaxations, Slopes, advance
from runner.engine.bounds.network import BoundNetwork
from runner.engine.network.graph import Node


def advance_in_segments(
    network: BoundNetwork,
    frontier: Frontier,
    relaxations: Relaxations,
    slopes: Slopes,
) -> Frontier:
    """As `advance` to the end without charges, to the last bit; only A between segments is kept.

    All ranks compute the same segments again, in the same order and with the same collectives.
    """
    *segments, last = _segments(network, frontier.todo)
    for todo in segments:
        here = Frontier(frontier.pending, frontier.constant, todo)
        frontier = _checkpointed(network, here, relaxations, slopes)
    # Its gradient comes first: nothing is gained by making it twice.
    here = Frontier(frontier.pending, frontier.constant, last)
    return advance(network, here, relaxations, slopes)


def _checkpointed(
    network: BoundNetwork,
    frontier: Frontier,
    relaxations: Relaxations,
    slopes: Slopes,
) -> Frontier:
    before = tuple(frontier.pending)
    after: tuple[str, ...] = ()

    def segment(constant: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        nonlocal after
        pending = dict(zip(before, rows, strict=True))
        here = Frontier(pending, constant, frontier.todo)
        done = advance(network, here, relaxations, slopes)
        after = tuple(done.pending)
        return done.constant, *done.pending.values()

    constant, *rows = checkpoint(
        segment,
        frontier.constant,
        *frontier.pending.values(),
        use_reentrant=False,
        preserve_rng_state=False,
    )
    return Frontier(dict(zip(after, rows, strict=True)), constant, ())


def _segments(network: BoundNetwork, todo: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    """Cut before relaxed nodes, about as many segments as each has relaxed nodes."""
    relaxed = [at for at, node in enumerate(todo) if node.name in network.relaxed]
    length = isqrt(max(0, len(relaxed) - 1)) + 1
    cuts = [0, *relaxed[length::length], len(todo)]
    return [todo[start:stop] for start, stop in pairwise(cuts)]
