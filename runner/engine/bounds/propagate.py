"""The driver: bounds of every start node layer by layer, block by block, then of the specs.

Rules of the driver: start rows exist for unstable neurons only, in blocks whose size does not
depend on the number of ranks; each node's bounds are intersected with what is already known. All
bounds hold in real arithmetic: passes are charged for their rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory, Method
from runner.engine.bounds.backward import (
    Frontier,
    frontier_at,
    least_charged,
    local_interval,
    start_frontier,
)
from runner.engine.bounds.crop import rows_of
from runner.engine.bounds.forward import ForwardPass, budget_for_forms
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.precision import CHEAP, RoundingShares, fine_enough
from runner.engine.bounds.proved_rows import ProvedRows
from runner.engine.bounds.refinement import NO_REFINEMENT, Refinement, Trees
from runner.engine.bounds.rounding import LEDGER, below
from runner.engine.bounds.rows import Rows, WholeRows
from runner.engine.bounds.start_rows import StartRows
from runner.engine.bounds.tagging import NoTagger, Tagger
from runner.engine.network.graph import Node

# Times by which that share is taken to rise from a start node to the next: while it cannot reach
# a limit so, it is not looked at. Bounds are charged for all of it either way.
SHARE_GROWTH = 10.0
# Of the width of a neuron's form, what a backward pass might take away and is not worth its row.
SLACK = 0.001
# Neurons of a layer that trees are tried on; the share of their width that must then be gone, for
# each so many multiply-adds (some seconds of a core) that trees of all may take.
TREE_SAMPLE, TREE_GAIN, TREE_WORK = 16, 0.02, 2e11


def _width(interval: Interval) -> Tensor:
    """Of all neurons together, in float64."""
    return (interval.upper - interval.lower).sum(dtype=LEDGER)


class Propagator:
    """Bounds of one network. `checkpoint` is called between blocks and iterations; it may raise."""

    def __init__(
        self,
        network: BoundNetwork,
        settings: Settings,
        tag: Tagger | None = None,
        checkpoint: Callable[[], None] = lambda: None,
        rows: Rows | None = None,
        refinement: Refinement | None = None,
    ) -> None:
        self.network = network
        self.settings = settings
        self._refinement = refinement or Refinement()
        self.refined = 0  # start nodes, all of whose blocks have been bounded
        # Of start nodes, the share of the width of their bounds that α has taken away.
        self.gains: dict[str, float] = {}
        self._cut = False
        self._tag = tag or NoTagger()
        self._checkpoint = checkpoint
        self._share = rows or WholeRows()

    @property
    def starts(self) -> StartRows:
        """Which neurons have rows of their own."""
        return StartRows(self.network, self.settings, self._refinement)

    @property
    def _rows(self) -> ProvedRows:
        finished = self._share.finished
        return ProvedRows(self.network, self.settings, self._tag, self._checkpoint, finished)

    def with_refinement(self, refinement: Refinement) -> Propagator:
        """The same for other neurons."""
        tag, share = self._tag, self._share
        return Propagator(self.network, self.settings, tag, self._checkpoint, share, refinement)

    def bound(
        self,
        box: Interval,
        known: NetworkBounds | None = None,
        finer: Interval | None = None,
        shares: RoundingShares = CHEAP,
    ) -> NetworkBounds:
        """Bounds of all nodes over boxes [B, *input]; IBP alone where the method says so.

        `known`: bounds of some nodes over the same or larger boxes, never to be looser than.
        `finer`: the boxes in a higher precision, which is gone on in from the first node on of
        whose width rounding would make up more than the greater of `shares`.
        """
        graph = self.network.graph
        fine = known.fine if known is not None else frozenset()
        bounds = NetworkBounds(box, {graph.input.name: box}, fine=fine)
        starts = {node.name for node in self.starts.nodes}
        self.refined, self._cut = 0, False
        share = torch.inf  # of a start node's width that rounding may make up
        forward = self._forward(box, known)
        for node in graph.nodes[1:]:
            if node.name in self.network.relaxed and self.settings.method is not Method.IBP:
                self._relax(node, bounds)
            bounds.intervals[node.name] = interval = self._interval(node, bounds, known)
            if node.name in starts:
                share *= SHARE_GROWTH
                if finer is not None and (bounds.fine or not share <= shares.mixed):
                    bounds, share = fine_enough(
                        self.network, node.name, interval, bounds, shares.mixed, self._tag
                    )
                    if not share <= shares.all:  # Not `>`: what is no number is coarse.
                        bounds, finer = self._over(finer, bounds), None
                        bounds.intervals[node.name] = interval = self._interval(node, bounds, known)
                if forward is not None:
                    interval = self._by_form(node.name, interval, bounds, forward)
                    bounds.intervals[node.name] = interval
                bounds.intervals[node.name] = self._refined(node.name, interval, bounds)
        return bounds

    @torch.no_grad()
    def again(self, name: str, bounds: NetworkBounds) -> NetworkBounds:
        """With rows of what is wanted of one start node, and what follows from them behind it."""
        found = replace(
            bounds,
            intervals=dict(bounds.intervals),
            relaxations=dict(bounds.relaxations),
            searching=dict(bounds.searching),
            unstable=set(bounds.unstable),
            raised=dict(bounds.raised),
        )
        found.intervals[name] = self._refined(name, found.intervals[name], found)
        names = [node.name for node in self.network.graph.nodes]
        for node in self.network.graph.nodes[names.index(name) + 1 :]:
            if node.name in self.network.relaxed:
                self._relax(node, found)
            found.intervals[node.name] = self._interval(node, found, bounds)
        return found

    def _forward(self, box: Interval, known: NetworkBounds | None) -> ForwardPass | None:
        """None where it would find nothing that is not known."""
        settings = self.settings
        if settings.method is Method.IBP or not settings.forward_share:
            return None
        rows = self._refinement is not NO_REFINEMENT
        budget = budget_for_forms(settings.budget, settings.without)
        share, tag = settings.forward_share, self._tag
        forward = ForwardPass(self.network, box, share, tag, budget, patches=rows)
        # Rows that are to be bounded are worth patches, which have not been there before.
        linear = known is not None and known.relaxations
        return None if linear and not forward.has_patches else forward

    def _by_form(
        self, name: str, interval: Interval, bounds: NetworkBounds, forward: ForwardPass
    ) -> Interval:
        """No looser; as it is where a forward pass is not worth it."""
        rows = 2 * len(self.starts.neurons(name, interval, bounds))
        columns = forward.columns(name, rows, bounds.dtype)
        if not columns:
            return interval
        self._checkpoint()
        found = forward.interval(name, bounds.intervals, columns)
        bounds.settled[name] = (forward.slack(name) <= SLACK).flatten(1).all(0)
        with self._tag.kind(Memory.BOUNDS):
            tighter = interval.intersect(found)
        forward.report(rows, 2 * len(self.starts.neurons(name, tighter, bounds)))
        return tighter

    def _interval(self, node: Node, bounds: NetworkBounds, known: NetworkBounds | None) -> Interval:
        with torch.no_grad(), self._tag.kind(Memory.BOUNDS):
            inputs = [bounds.intervals[name] for name in node.inputs]
            interval = self.network.rule(node.name).interval(*inputs)
            if known is not None and node.name in known.intervals:
                interval = interval.intersect(known.intervals[node.name].to(bounds.dtype))
        return interval

    def _over(self, box: Interval, bounds: NetworkBounds) -> NetworkBounds:
        """The same bounds over the same boxes in a higher precision."""
        found = self.in_precision(bounds, box.lower.dtype)
        intervals = {**found.intervals, self.network.graph.input.name: box}
        return replace(found, box=box, intervals=intervals)

    def in_precision(self, bounds: NetworkBounds, dtype: torch.dtype) -> NetworkBounds:
        """The same bounds, with relaxations of that precision; not below their own."""
        if dtype is bounds.dtype:
            return bounds
        with self._tag.kind(Memory.BOUNDS):
            intervals = {name: interval.to(dtype) for name, interval in bounds.intervals.items()}
        converted = NetworkBounds(bounds.box.to(dtype), intervals)
        for node in self.network.graph.nodes:
            if node.name in bounds.relaxations:
                self._relax(node, converted)
        return converted

    def _relax(self, node: Node, bounds: NetworkBounds) -> None:
        with self._tag.kind(Memory.BOUNDS):
            before = bounds.intervals[node.inputs[0]]
            mine = local_interval(self.network, node.inputs[0], before)
            rule, dtype = self.network.relaxed[node.name], self.network.dtype
            made = searched = rule.relax(mine)
            if bounds.dtype is not dtype:
                searched = rule.relax(mine.outer(dtype))
            bounds.relaxations[node.name], bounds.searching[node.name] = made, searched
            if node.name in bounds.fine:
                bounds.raised[node.name] = rule.relax(mine.to(LEDGER))
            if bool(((before.lower < 0) & (before.upper > 0)).any()):
                bounds.unstable.add(node.name)

    def spec_bounds(
        self,
        bounds: NetworkBounds,
        specs: Tensor,
        enough: Callable[[Tensor], bool] | None = None,
    ) -> Tensor:
        """Lower bounds [S, B] of specs @ outputs, specs [S, outputs], never below IBP's, in the
        precision of the specs, which may be higher than that of the bounds.

        `enough` may end α-CROWN early, given the best bounds so far of a block; without it, rows
        have nothing to do with each other, and are cut as those of a start node.
        """
        output = self.network.graph.output
        bounds = self.in_precision(bounds, specs.dtype)
        interval = bounds.intervals[output]
        with self._tag.kind(Memory.BOUNDS):
            rows = specs[:, None].reshape(len(specs), 1, *interval.lower.shape[1:])
            found = least_charged(rows, interval, specs.shape[1] + 2)
            # Infinite ends of several signs have no sum, and what is no number bounds nothing.
            found = torch.where(found.isnan(), -torch.inf, found)
        if self.settings.method is Method.IBP:
            return found
        batch = bounds.box.lower.shape[0]
        cut = enough is None and len(specs) > 0
        count = min(len(specs), self.starts.tiles(len(specs)))
        blocks = specs.tensor_split(count) if cut else specs.split(self.settings.row_block)

        def bound(block: int) -> Tensor:
            def start(dtype: torch.dtype) -> Frontier:
                with self._tag.kind(Memory.A):
                    return self._at_output(blocks[block].to(dtype), batch)

            return self._rows.bound(start, bounds, self.settings.method, enough)

        parts = self._share.share(blocks, found.T, bound)
        return torch.fmax(found, torch.cat(parts))

    def _at_output(self, specs: Tensor, batch: int) -> Frontier:
        network, output = self.network, self.network.graph.output
        rows = specs.reshape(-1, 1, *network.graph.node(output).shape)
        rows = rows.expand(-1, batch, *rows.shape[2:])
        return frontier_at(network, output, network.features.local(output, rows, 2))

    def _refined(self, name: str, interval: Interval, bounds: NetworkBounds) -> Interval:
        """CROWN on the rows that matter, then α-CROWN on those that still do. In the network's own
        precision first, where that is the lower one: it leaves fewer to the higher.
        """
        if self.settings.method is Method.IBP:
            return interval
        if bounds.dtype is not self.network.dtype:
            interval = self._backward_bounds(name, interval, self._lower(bounds), Method.CROWN)
        interval = self._backward_bounds(name, interval, bounds, Method.CROWN)
        if self._refinement.trees is not None:
            interval = self._by_trees(name, interval, bounds, self._refinement.trees)
        elif self.settings.method is Method.ALPHA_CROWN and name not in self._refinement.idle:
            without, width = interval, _width(interval)
            interval = self._backward_bounds(name, without, bounds, Method.ALPHA_CROWN)
            if bool(width > 0):
                self.gains[name] = float(1 - _width(interval) / width)
        self.refined += not self._cut
        return interval

    def _lower(self, bounds: NetworkBounds) -> NetworkBounds:
        """The same over boxes in the network's own precision, rounded outwards."""
        box = bounds.box.outer(self.network.dtype)
        return replace(bounds, box=box, relaxations=bounds.searching)

    def _backward_bounds(
        self, name: str, interval: Interval, bounds: NetworkBounds, method: Method
    ) -> Interval:
        batch, dtype = len(interval.lower), interval.lower.dtype
        neurons = self.starts.neurons(name, interval, bounds)
        tiles = self.starts.cropped(name, neurons) if method is Method.CROWN else []
        blocks = [tile.neurons for tile in tiles] or self.starts.blocks(neurons)

        def bound(block: int) -> Tensor:
            if tiles:
                self._checkpoint()
                return rows_of(tiles[block], bounds, self._tag).to(dtype)

            def start(wanted: torch.dtype) -> Frontier:
                with torch.no_grad(), self._tag.kind(Memory.A):
                    return start_frontier(self.network, name, blocks[block], batch, wanted)

            return self._rows.bound(start, bounds, method).to(dtype)

        return self._improved(interval, blocks, bound)

    def _by_trees(
        self, name: str, interval: Interval, bounds: NetworkBounds, trees: Trees
    ) -> Interval:
        """Where a few splits of some neurons gain enough, trees of all."""
        neurons = self.starts.neurons(name, interval, bounds)
        most = trees.most_neurons(name, bounds.intervals)
        depth = trees.depth
        left_out = depth.within is not None and name not in depth.within
        # Behind no ReLU that is unstable there is nothing to split.
        if not len(neurons) or not most or left_out:
            return interval

        def bound(some: Tensor, splits: int | None = None) -> Tensor:
            finished = self._share.finished
            found = trees.lower(name, some, bounds.intervals, finished, splits)
            return below(found, interval.lower.dtype)

        if depth.trial:
            sample = neurons[:: -(-len(neurons) // TREE_SAMPLE)]
            tried = self._improved(interval, [sample], lambda _: bound(sample, depth.trial))
            widths = [(i.upper - i.lower).flatten()[sample].sum() for i in (tried, interval)]
            interval = tried
            work = 2 * len(neurons) * trees.passes * self.network.work(self.network.ancestors(name))
            wanted = TREE_GAIN * max(1.0, work / TREE_WORK)
            if not bool(widths[0] <= (1 - wanted) * widths[1]):
                return interval
        trees.grown.add(name)
        blocks = [
            part
            for block in self.starts.blocks(neurons)
            for part in block.tensor_split(-(-len(block) // most))
        ]
        return self._improved(interval, blocks, lambda block: bound(blocks[block]))

    def _improved(
        self, interval: Interval, blocks: list[Tensor], bound: Callable[[int], Tensor]
    ) -> Interval:
        """With what `bound` gives [2 N, B] for each block of flat neurons [N] and their negatives,
        while there is time for it.
        """
        batch = interval.lower.shape[0]
        with self._tag.kind(Memory.BOUNDS):
            lower = interval.lower.reshape(batch, -1).clone()
            upper = interval.upper.reshape(batch, -1).clone()
        cut = False

        def in_time(block: int) -> Tensor:
            nonlocal cut
            cut = cut or self._refinement.over()
            if cut:
                return lower.new_full((2 * len(blocks[block]), batch), -torch.inf)
            return bound(block)

        found = self._share.share(blocks, lower, in_time)
        with self._tag.kind(Memory.BOUNDS):
            for neurons, rows in zip(blocks, found, strict=True):
                count = len(neurons)
                # fmax, fmin: what is not a number says nothing.
                lower[:, neurons] = torch.fmax(lower[:, neurons], rows[:count].T)
                upper[:, neurons] = torch.fmin(upper[:, neurons], -rows[count:].T)
        self._cut = self._cut or cut
        shape = interval.lower.shape
        return interval.between(lower.reshape(shape), upper.reshape(shape))
