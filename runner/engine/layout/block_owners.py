"""The weights axis as data: who owns which column block of which weight. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.engine.network.blocks import WeightShape, cut_weights


@dataclass(frozen=True)
class Block:
    """Columns start to stop (dimension 1) of one weight, kept by rank `owner`."""

    start: int
    stop: int
    owner: int
    bytes: int


BlockPlan = Mapping[str, tuple[Block, ...]]


def plan_blocks(weights: list[WeightShape], owners: int) -> BlockPlan:
    """Gives each block, largest first, to the owner with the fewest bytes so far."""
    cuts = cut_weights(weights)
    load = [0] * owners
    owner_of = [0] * len(cuts)
    for index in sorted(range(len(cuts)), key=lambda index: -cuts[index].bytes):
        owner_of[index] = min(range(owners), key=lambda owner: load[owner])
        load[owner_of[index]] += cuts[index].bytes
    plan: dict[str, tuple[Block, ...]] = {weight.name: () for weight in weights}
    for cut, owner in zip(cuts, owner_of, strict=True):
        plan[cut.weight] += (Block(cut.start, cut.stop, owner, cut.bytes),)
    return plan
