"""Fixed column blocks of the Linear and Conv weights: how a prepared network is cut. No torch.

Block sizes come from the network alone, never from the number of ranks: then every product has
the same shape and every sum the same order for any P, and results are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from runner.engine.network.graph import Dtype, Graph, Op

LEAST_BLOCK_BYTES = 64 * 1024
GREATEST_BLOCK_BYTES = 4 * 1024 * 1024
BLOCKS_WANTED = 16  # of a network whose block size is between the limits
# Channels that a vector of a CPU holds: a convolution of 19 takes as long as one of 32.
LANES = 16


@dataclass(frozen=True)
class WeightShape:
    """A Linear or Conv weight. `whole`: it cannot be cut (a grouped convolution)."""

    name: str
    shape: tuple[int, ...]
    whole: bool
    dtype: Dtype = Dtype.FLOAT32

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.bytes


@dataclass(frozen=True)
class Cut:
    """Columns start to stop (dimension 1) of one weight."""

    weight: str
    start: int
    stop: int
    bytes: int


def weights_of(graph: Graph, shape_of: Callable[[str], tuple[int, ...]]) -> list[WeightShape]:
    """The Linear and Conv weights of a graph, in order, a shared one once."""
    weights: dict[str, WeightShape] = {}
    for node in graph.nodes:
        if node.op in (Op.LINEAR, Op.CONV):
            name = node.parameters["weight"]
            whole = node.attributes.get("groups", 1) != 1
            weights.setdefault(name, WeightShape(name, shape_of(name), whole, graph.dtype))
    return list(weights.values())


def cut_weights(weights: list[WeightShape]) -> list[Cut]:
    """Blocks of every weight, in order; together they are all of its columns."""
    total = sum(weight.bytes for weight in weights)
    wanted = min(max(total // BLOCKS_WANTED, LEAST_BLOCK_BYTES), GREATEST_BLOCK_BYTES)
    return [cut for weight in weights for cut in _cut(weight, wanted)]


def _cut(weight: WeightShape, wanted_bytes: int) -> list[Cut]:
    columns = weight.shape[1]
    bytes_per_column = weight.bytes // columns
    step = columns if weight.whole else max(1, wanted_bytes // bytes_per_column)
    if len(weight.shape) > 2 and not weight.whole:
        step = _lanes(columns, step, GREATEST_BLOCK_BYTES // bytes_per_column)
    starts = range(0, columns, step)
    stops = [min(start + step, columns) for start in starts]
    return [
        Cut(weight.name, start, stop, bytes_per_column * (stop - start))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _lanes(columns: int, step: int, most: int) -> int:
    """Instead of a step: full vectors, of at most twice as much; parts of about the same size."""
    wide = min(_up(step), most // LANES * LANES)
    if not wide or not LANES // 2 <= step < columns:
        return step
    return _up(-(-columns // -(-columns // wide)))


def _up(channels: int) -> int:
    return -(-channels // LANES) * LANES
