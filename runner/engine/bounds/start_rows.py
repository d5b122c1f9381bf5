"""Which neurons have rows of their own: how many they are, what work they take, how they are cut.

Rows exist for neurons whose bounds may matter alone: of those that only ReLUs take, for unstable
ones. Their blocks depend on the network and the budget, never on the number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from runner.engine.bounds.crop import Tile, tiles_of
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.refinement import Refinement
from runner.engine.bounds.tiles import tiles
from runner.engine.network.graph import Node


@dataclass(frozen=True)
class StartRows:
    """Of one network. `refinement`: which neurons are worth them, beside all that bounds say."""

    network: BoundNetwork
    settings: Settings
    refinement: Refinement = field(default_factory=Refinement)

    @property
    def nodes(self) -> list[Node]:
        """Those whose bounds rows of their own may improve, in order."""
        names = self.network.start_nodes - self.network.exact - self.settings.interval_only
        return [node for node in self.network.graph.nodes if node.name in names]

    def neurons(self, name: str, interval: Interval, bounds: NetworkBounds) -> Tensor:
        """Flat neurons [N] of a node, bounded by `interval`, whose bounds are wanted."""
        lower, upper = interval.lower.flatten(1), interval.upper.flatten(1)
        relu_only = name in self.network.only_unstable
        wanted = ((lower < 0) & (upper > 0) if relu_only else lower < upper).any(0)
        if name in self.refinement.wanted:
            wanted = wanted & self.refinement.wanted[name]
        if name in bounds.settled:
            wanted = wanted & ~bounds.settled[name]
        return wanted.nonzero()[:, 0]

    def blocks(self, neurons: Tensor) -> list[Tensor]:
        """Neurons [N] in blocks of fixed size."""
        count = min(self.tiles(2 * len(neurons)), len(neurons))
        return list(neurons.tensor_split(count)) if count else []

    def cropped(self, name: str, neurons: Tensor) -> list[Tile]:
        """Neurons [N] of a node in tiles of an image; none where CROWN is not quicker so."""
        return tiles_of(self.network, name, neurons, self.settings.row_block // 2)

    def tiles(self, rows: int) -> int:
        """Into how many tiles so many rows are cut."""
        settings = self.settings
        graph, least = self.network.graph, settings.least_rows
        return tiles(rows, settings.row_block, graph, settings.budget, least)

    def count(self, name: str, bounds: NetworkBounds) -> int:
        """How many neurons of a node have rows over all boxes, as bounds are."""
        interval = bounds.intervals[name]
        return len(self.neurons(name, interval, bounds)) * len(interval.lower)

    def work(self, bounds: NetworkBounds) -> int:
        """Multiply-adds that rows of all of them take, if bounds stay as they are."""
        work, ancestors = self.network.work, self.network.ancestors
        names = [node.name for node in self.nodes]
        return sum(2 * self.count(name, bounds) * work(ancestors(name)) for name in names)
