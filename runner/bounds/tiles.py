"""How many rows of A exist at once: from a memory budget and the network, never from P."""

from __future__ import annotations

from runner.network.graph import Graph

# For A and what α keeps for its gradient.
BUDGET_BYTES = 32 * 1024 * 1024
# Copies of the widest layer's A that live at the same time: in, out, gradient, and α's own.
LIVE_COPIES = 8
LEAST_ROWS = 16
MOST_ROWS = 512


def row_block(graph: Graph) -> int:
    """Rows of a start block; even, as both sides of a neuron are rows."""
    widest = max(node.size for node in graph.nodes)
    rows = BUDGET_BYTES // (4 * widest * LIVE_COPIES)
    return min(max(rows - rows % 2, LEAST_ROWS), MOST_ROWS)
