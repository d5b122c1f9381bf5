"""What a strategy should send, from the shapes alone: the formula beside the measured bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.contract.layout import Axis
from runner.contract.strategy import Strategy
from runner.contract.vocabulary import Method
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.start_rows import StartRows
from runner.engine.network.graph import Op

VALUE_BYTES = 4


def formula_bytes(
    network: BoundNetwork,
    weights: Mapping[str, Sequence[int]],
    strategy: Strategy,
    ranks: int,
    settings: Settings,
    blocks: Sequence[Sequence[int]],
) -> float:
    """Bytes that a rank sends, mean over the ranks; the leading terms, without vectors.

    A product with a weight W [n, m] sends, for R rows: features A, R m values; weights the
    smaller of W and the product, which is of R n values for each block of W where a gradient
    passes; weights and specs over the same ranks W. Each is (D - 1) / D of that per rank, D being
    the degree of the axis, and a block counts for the ranks alone that bound it. Ranks that share
    rows (specs, domains) send the R bounds, too. In I iterations, α-CROWN passes every layer but
    those before its first ReLU I times, and I - 1 times for gradients.

    `blocks`: rows of each block of each start node, in the order in which they were bounded.
    `weights`: bytes of the blocks of each Linear and Conv weight.
    """
    together = strategy.same_ranks(Axis.WEIGHTS, Axis.SPECS)
    sharers = len(strategy.sharers(ranks)[0])
    cutters = max(strategy.degree(axis, ranks) for axis in (Axis.WEIGHTS, Axis.FEATURES))
    share = (cutters - 1) / cutters / (1 if together else sharers)
    sent = 0.0
    for (start, method), counts in zip(_calls(network, settings), blocks, strict=True):
        sent += sum(counts) * VALUE_BYTES * (sharers - 1) / sharers
        rounds = _rounds(counts, ranks) if together else counts
        passes = settings.alpha.iterations if method is Method.ALPHA_CROWN else 1
        for rows in rounds:
            relaxed = False
            for node in network.ancestors(start):
                relaxed = relaxed or node.name in network.relaxed
                if node.op in (Op.LINEAR, Op.CONV):
                    gradients = passes - 1 if relaxed else 0
                    times = passes if relaxed else 1
                    # Both rows of a neuron pass its own layer as one.
                    passing = rows // 2 if node.name == start != network.graph.output else rows
                    before = network.graph.node(node.inputs[0])
                    blocks_of = weights[node.parameters["weight"]]
                    values = passing * before.size
                    sent += share * times * _product(values, blocks_of, strategy)
                    if Axis.FEATURES not in strategy.sharded:
                        values = passing * node.size * len(blocks_of)
                    sent += share * gradients * _product(values, blocks_of, strategy)
    return sent


def _calls(network: BoundNetwork, settings: Settings) -> list[tuple[str, Method]]:
    """Start nodes and methods in the order in which the driver bounds their rows."""
    if settings.method is Method.IBP:
        return []
    methods = [Method.CROWN]
    if settings.method is Method.ALPHA_CROWN:
        methods.append(Method.ALPHA_CROWN)
    starts = StartRows(network, settings).nodes
    calls = [(node.name, method) for node in starts for method in methods]
    return [*calls, (network.graph.output, settings.method)]


def _rounds(counts: Sequence[int], ranks: int) -> list[int]:
    """Blocks that are bounded at the same time share one passage of the weights."""
    return [max(counts[at : at + ranks]) for at in range(0, len(counts), ranks)]


def _product(values: int, weight: Sequence[int], strategy: Strategy) -> int:
    product = values * VALUE_BYTES
    if Axis.FEATURES in strategy.sharded:
        return product
    if Axis.WEIGHTS not in strategy.sharded:
        return 0
    together = strategy.same_ranks(Axis.WEIGHTS, Axis.SPECS)
    return sum(weight) if together else min(sum(weight), product)
