"""How many rows of A exist at once: from a memory budget and the network, never from P."""

from __future__ import annotations

from runner.network.graph import Graph

# For A and what α keeps for its gradient.
BUDGET_BYTES = 32 * 1024 * 1024
# Copies of the widest layer's A that live at the same time: in, out, gradient, and α's own.
LIVE_COPIES = 8
LEAST_ROWS = 16
# Of one start node, when it has many unstable neurons.
BLOCKS_WANTED = 8
LEAST_SHARED_ROWS = 128
MOST_ROWS = 512


def row_block(graph: Graph) -> int:
    """Rows of a start block; even, as both sides of a neuron are rows."""
    widest = max(node.size for node in graph.nodes)
    rows = BUDGET_BYTES // (4 * widest * LIVE_COPIES)
    return min(max(rows - rows % 2, LEAST_ROWS), MOST_ROWS)


def neurons_per_block(neurons: int, most_rows: int) -> int:
    """Unstable neurons of one start node that are bounded together, two rows each.

    About BLOCKS_WANTED blocks, which ranks can share, but none too small to multiply well.
    """
    rows = max(LEAST_SHARED_ROWS, -(-2 * neurons // BLOCKS_WANTED))
    return max(1, min(rows, most_rows) // 2)
