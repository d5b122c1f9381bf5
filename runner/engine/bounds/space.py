"""What a branch and bound can split: neurons of some nodes, as columns of one tensor.

A domain has a column for each neuron, on every rank; a rank computes with those of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from runner.engine.bounds.network import BoundNetwork


@dataclass(frozen=True)
class Splittable:
    """Neurons of the node `before` that can be split, in the root's box; `name`: of the node that
    they are split for.

    `neurons` [U]: flat, of the whole node; columns `start` to `stop` of every domain belong to
    them. Of those, `own` [V] are this rank's, and lie at `at` [V] in its own columns [n].
    """

    name: str
    before: str
    neurons: Tensor
    start: int
    stop: int
    own: Tensor
    at: Tensor


class Located(NamedTuple):
    """As in `Splittable`."""

    neurons: Tensor
    own: Tensor
    at: Tensor


def located(network: BoundNetwork, name: str, wanted: Tensor) -> Located:
    """Where the neurons `wanted` [*shape] of a node lie."""
    flat = wanted.reshape(-1)
    numbers = torch.arange(flat.numel(), device=flat.device).reshape(wanted.shape)
    mine = network.features.local(name, numbers, 0).reshape(-1)
    neurons, at = flat.nonzero()[:, 0], flat[mine].nonzero()[:, 0]
    return Located(neurons, torch.searchsorted(neurons, mine[at]), at)


N = TypeVar("N", bound=Splittable, covariant=True)


@dataclass(frozen=True)
class Space(Generic[N]):
    """All that can be split, node by node: `size` neurons."""

    nodes: tuple[N, ...]
    size: int

    @property
    def slots(self) -> list[int]:
        """How many of each node's are on this rank."""
        return [len(node.own) for node in self.nodes]

    @cached_property
    def columns(self) -> Tensor:
        """The domain's column that each of this rank's [V] belongs to."""
        return torch.cat([node.start + node.own for node in self.nodes])

    def columns_of(self, values: dict[str, Tensor]) -> Tensor:
        """Of values [B, *shape] by node, those of all neurons that can be split: [B, size]."""
        return torch.cat(
            [values[node.before].flatten(1)[:, node.neurons] for node in self.nodes], 1
        )
