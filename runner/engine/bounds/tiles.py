"""How many rows of A exist at once: from a memory budget and the network, never from P."""

from __future__ import annotations

from runner.engine.bounds.budget import Budget
from runner.engine.network.evaluate import matmul_sizes
from runner.engine.network.graph import Graph, Node, Op

# Copies of the widest layer's A that live at the same time: in, out, gradient, and α's own.
LIVE_COPIES = 8
LEAST_ROWS = 16
# Of a core, as the last three numbers.
MOST_ROWS = 512
# Of one start node, when it has many unstable neurons.
TILES_WANTED = 8
# Of the widest node's A, in values: more does not stay in a core's cache (convolutions took a
# quarter longer), and below LEAST_VALUES operators cost their number and not their size.
CACHED_VALUES = 192 * 1024
LEAST_VALUES = 12 * 1024
CACHED_ROWS = 128


def row_block(graph: Graph, budget: Budget) -> int:
    """Rows of a start block; even, as both sides of a neuron are rows. Each may have parameters of
    its own.
    """
    fits = budget.bytes // (4 * max(map(_parameters, graph.nodes)) * LIVE_COPIES)
    rows = min(fits, budget.scaled(MOST_ROWS))
    return max(rows - rows % 2, LEAST_ROWS)


def tiles(rows: int, most_rows: int, graph: Graph, budget: Budget, least_rows: int = 0) -> int:
    """Into how many tiles, of equal length, the rows of one start node are cut.

    An even number: two ranks then have the same work, and more lose little. About TILES_WANTED of
    many rows, none shorter than `least_rows`; one alone where half of it would not pay.
    """
    wanted = max(cached_rows(graph, budget), -(-rows // TILES_WANTED), least_rows)
    length = min(most_rows, wanted)
    count = -(-rows // length)
    if count == 1 and rows * _widest(graph) < 2 * budget.scaled(LEAST_VALUES):
        return 1
    return count + count % 2


def cached_rows(graph: Graph, budget: Budget) -> int:
    """A tile that fits a cache, unless a matrix is larger than that: each tile reads it again."""
    sizes = {node.name: node.size for node in graph.nodes}
    matrices = [n.size * sizes[n.inputs[0]] for n in graph.nodes if n.op is Op.LINEAR]
    rows = max(budget.scaled(CACHED_VALUES), *matrices, 0) // _widest(graph)
    return min(max(rows, LEAST_ROWS), budget.scaled(CACHED_ROWS))


def _parameters(node: Node) -> int:
    """At most, of one row: of attention one for each product of two numbers, or each pair."""
    match node.op:
        case Op.MATMUL:
            return node.size * matmul_sizes(node)[2]
        case Op.EXP_SUMS:
            return node.size * node.shape[1]
        case _:
            return node.size


def _widest(graph: Graph) -> int:
    return max(node.size for node in graph.nodes)
