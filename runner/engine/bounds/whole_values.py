"""Which values of a network are whole numbers, whatever its inputs are: those that step functions
make, and what parameters that are whole numbers make of them.

A bound of such a value that is near enough to one whole number is that number itself. So rounding
does not decide what a comparison of two of them gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import LEDGER
from runner.engine.functions import function_of
from runner.engine.network.evaluate import apply
from runner.engine.network.graph import Node, Op

# Whole numbers of float64 lie no further apart up to here, with room.
EXACT = 2.0**51
# Of an error: what leaves one whole number alone.
NEAR = 0.25


@torch.no_grad()
def whole_values(network: BoundNetwork, box: Interval) -> dict[str, Tensor]:
    """Of every node over a box [1, *input]: which values [1, *shape] are whole at all its points.
    All ranks ask alike.
    """
    given = (box.lower == box.upper) & (box.lower == box.lower.round())
    # 1 where a value may be no whole number.
    broken = {network.graph.input.name: (~given).to(LEDGER)}
    for node in network.graph.nodes[1:]:
        broken[node.name] = _broken(network, node, [broken[name] for name in node.inputs])
    return {name: values == 0 for name, values in broken.items()}


def _broken(network: BoundNetwork, node: Node, before: list[Tensor]) -> Tensor:
    ones = before[0].new_ones((1, *node.shape))
    if node.name in network.linear:
        rule = network.linear[node.name]
        if not rule.whole:
            return ones
        # A parameter that is a whole number and not 0 passes on at least 1.
        spread = rule.spread(before, [torch.zeros_like(each) for each in before], 0)
        return (~(spread < 0.5)).to(LEDGER)
    match node.op:
        case Op.FUNCTION if function_of(node).steps is not None:
            return torch.zeros_like(ones)
        case Op.RELU:
            return before[0]
        case Op.MAXPOOL:
            return apply(node, {}, before[0])
        case Op.PRODUCT:
            return before[0].amax(1)
    return ones
