"""The weights axis as data: fixed column blocks of every weight and who owns them. No torch.

Block sizes come from the network alone, never from the number of ranks: then every product has
the same shape and every sum the same order for any P, and results are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from runner.network.graph import Graph, Op

BYTES_PER_VALUE = 4  # weights are float32
LEAST_BLOCK_BYTES = 64 * 1024
GREATEST_BLOCK_BYTES = 4 * 1024 * 1024
BLOCKS_WANTED = 16  # of a network whose block size is between the limits


@dataclass(frozen=True)
class Block:
    """Columns start to stop (dimension 1) of one weight, kept by rank `owner`."""

    start: int
    stop: int
    owner: int
    bytes: int


@dataclass(frozen=True)
class WeightShape:
    """A Linear or Conv weight. `whole`: it cannot be cut (a grouped convolution)."""

    name: str
    shape: tuple[int, ...]
    whole: bool

    @property
    def bytes(self) -> int:
        return prod(self.shape) * BYTES_PER_VALUE


BlockPlan = Mapping[str, tuple[Block, ...]]


def weights_of(graph: Graph, shape_of: Callable[[str], tuple[int, ...]]) -> list[WeightShape]:
    """The Linear and Conv weights of a graph, in order, a shared one once."""
    weights: dict[str, WeightShape] = {}
    for node in graph.nodes:
        if node.op in (Op.LINEAR, Op.CONV):
            name = node.parameters["weight"]
            whole = node.attributes.get("groups", 1) != 1
            weights.setdefault(name, WeightShape(name, shape_of(name), whole))
    return list(weights.values())


def plan_blocks(weights: list[WeightShape], owners: int) -> BlockPlan:
    """Cuts every weight and gives each block, largest first, to the owner with the fewest bytes."""
    total = sum(weight.bytes for weight in weights)
    wanted = min(max(total // BLOCKS_WANTED, LEAST_BLOCK_BYTES), GREATEST_BLOCK_BYTES)
    cuts = [(weight, start, stop) for weight in weights for start, stop in _columns(weight, wanted)]
    sizes = [weight.bytes // weight.shape[1] * (stop - start) for weight, start, stop in cuts]
    load = [0] * owners
    owner_of = [0] * len(cuts)
    for index in sorted(range(len(cuts)), key=lambda index: -sizes[index]):
        owner_of[index] = min(range(owners), key=lambda owner: load[owner])
        load[owner_of[index]] += sizes[index]
    plan: dict[str, tuple[Block, ...]] = {weight.name: () for weight in weights}
    for index, (weight, start, stop) in enumerate(cuts):
        plan[weight.name] += (Block(start, stop, owner_of[index], sizes[index]),)
    return plan


def _columns(weight: WeightShape, wanted_bytes: int) -> list[tuple[int, int]]:
    columns = weight.shape[1]
    if weight.whole:
        return [(0, columns)]
    step = max(1, wanted_bytes // (weight.bytes // columns))
    return [(start, min(start + step, columns)) for start in range(0, columns, step)]
