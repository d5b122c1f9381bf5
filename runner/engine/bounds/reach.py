"""Which neurons rows of the output depend on: no others need bounds for them.

Of a network of dense layers that is all; of an image network whose rows ask for one place of the
output, what that place sees.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rules import AveragePoolRule
from runner.engine.network.graph import Node, Op


@torch.no_grad()
def reach(network: BoundNetwork, rows: Tensor) -> dict[str, Tensor]:
    """By start node, its flat neurons [n] that rows [S, outputs] depend on. All ranks call it.

    Sums of positive numbers drawn at random stand for paths: only by accident do the weights of two
    of them cancel, and a bound is then looser, not wrong.
    """
    shapes = {node.name: node.shape for node in network.graph.nodes}
    output = network.graph.output
    draws = torch.Generator().manual_seed(0)
    seen = (rows != 0).any(0).reshape(1, 1, *shapes[output])
    pending = {output: network.features.local(output, seen, 2)}
    found: dict[str, Tensor] = {}
    for node in network.ancestors(output):
        seen = pending.pop(node.name)
        if node.name in network.start_nodes:
            found[node.name] = (network.whole(node.name, seen.float(), 2) != 0).flatten()
        drawn = torch.rand((1, 1, *node.shape), generator=draws).to(seen.device, network.dtype)
        weight = 1 + network.features.local(node.name, drawn, 2)
        for name, part in zip(node.inputs, _behind(network, node, seen * weight), strict=True):
            at = part != 0
            pending[name] = pending[name] | at if name in pending else at
    return found


def _behind(network: BoundNetwork, node: Node, rows: Tensor) -> list[Tensor]:
    if node.name in network.linear:
        return network.linear[node.name].backward(rows)[0]
    if node.op is Op.PRODUCT:
        return [torch.stack((rows, rows), 2)]
    if node.op in (Op.MATMUL, Op.EXP_SUMS):
        # Each value takes many: all are taken for reached.
        (name,) = node.inputs
        reached = rows.new_ones(1, 1, *network.graph.node(name).shape)
        return [network.features.local(name, reached, 2)]
    if node.op is Op.MAXPOOL:
        channels, (_, *image) = rows.shape[2], network.graph.node(node.inputs[0]).shape
        mine = replace(node, shape=rows.shape[2:])
        if not channels:
            return [rows.new_zeros((1, 1, 0, *image))]
        return AveragePoolRule(mine, (channels, *image)).backward(rows)[0]
    return [rows]
