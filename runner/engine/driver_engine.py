"""The project's own bounds, under a strategy."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from runner.contract.layout import Axis
from runner.contract.strategy import Strategy
from runner.contract.vocabulary import EnginePart, Method
from runner.engine.attack.interval_steps import IntervalSteps
from runner.engine.attack.pgd import Guide
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.boxes import BoxPropagator, batch_boxes
from runner.engine.bounds.budget import Budget, budget_of
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.rows import Rows, WholeRows
from runner.engine.bounds.tagging import Tagger
from runner.engine.bounds.tiles import row_block
from runner.engine.clock import Deadline
from runner.engine.engines import Bounding
from runner.engine.exact import excluded_exactly
from runner.engine.finding import Confirmation
from runner.engine.incomplete import Incomplete, TimeShares
from runner.engine.layout.block_owners import plan_blocks
from runner.engine.layout.blocked_weights import BlockedWeights
from runner.engine.layout.feature_shares import column_row_zones, plan_features
from runner.engine.layout.group import Group
from runner.engine.layout.mesh import Mesh
from runner.engine.layout.shared_rows import SharedRows
from runner.engine.layout.tensor import ShardedFeatures
from runner.engine.network.blocks import weights_of
from runner.engine.network.prepared import PreparedWeights, read_graph
from runner.engine.search.sharing import Alike, Apart, Sharing
from runner.engine.specs import Room, no_room
from runner.engine.targets import Target
from runner.problem.property.model import Property


class DriverEngine:
    """The bound graph, its weights and features laid out as the strategy says."""

    def __init__(
        self,
        prepared: Path,
        strategy: Strategy,
        group: Group,
        device: torch.device,
        tag: Tagger,
        budget: Budget | None = None,
        without: AbstractSet[EnginePart] = frozenset(),
    ) -> None:
        """`budget`: what suits the device where none is given; `without`: parts left out."""
        graph, source = read_graph(prepared), PreparedWeights(prepared)
        self.budget = budget = budget or budget_of(device)
        self._strategy = strategy
        self._mesh = mesh = Mesh(group, strategy)
        self._device = device
        self._tag = tag
        self._weights: BlockedWeights | None = None
        if Axis.FEATURES in strategy.sharded:
            cutters = mesh.along(Axis.FEATURES)
            plan = plan_features(graph, cutters.size)
            features = ShardedFeatures(graph, plan, source, cutters, device, tag)
            self._network = BoundNetwork(graph, features.weights, features)
            self.weight_bytes = features.resting_bytes
        else:
            # Ranks that share no weights each own all of them, as a group of one.
            owners = mesh.along(Axis.WEIGHTS)
            blocks = plan_blocks(weights_of(graph, source.shape), owners.size)
            self._weights = BlockedWeights(
                graph, source, blocks, owners, device, tag, offload=strategy.offload
            )
            self._network = BoundNetwork(graph, self._weights)
            self.weight_bytes = self._weights.resting_bytes
        self._settings = Settings(
            row_block=row_block(graph, budget),
            budget=budget,
            alpha=AlphaSettings(checkpoint=strategy.checkpoint),
            interval_only=column_row_zones(graph) if strategy.interval_zones else frozenset(),
            without=frozenset(without),
        )
        self.graph = graph
        self.dtype = self._network.dtype
        self._source = source
        self.input_shape = graph.input.shape
        self.neurons = sum(node.size for node in graph.nodes)

    def forward(self, x: Tensor) -> Tensor:
        return self._network.forward(x)

    def exact(self, x: Tensor) -> Tensor:
        return self._network.forward(x.double())

    def bounding(self, instance: Property, deadline: Deadline, room: Room = no_room) -> Bounding:
        checkpoint, rows, passed_apart = self._rows(deadline)
        return Incomplete(
            self._network,
            instance,
            self._device,
            self._settings,
            self._tag,
            checkpoint,
            rows,
            room,
            deadline.check,
            TimeShares(deadline.passed, passed_apart),
        )

    def excluded_exactly(self, instance: Property, target: Target) -> bool:
        """Rank 0 decides, from the file: it holds no more than a small network there."""
        excluded = self._mesh.world.rank == 0 and excluded_exactly(
            self.graph, self._source, instance.cases[target.case], target.disjunct
        )
        return self._mesh.world.decide(excluded)

    def guide(self, checkpoint: Callable[[], None]) -> Guide:
        return IntervalSteps(
            self.boxes(checkpoint), batch_boxes(self.graph, self.budget), self._tag
        )

    def boxes(self, checkpoint: Callable[[], None]) -> BoxPropagator:
        """For bounds over many small boxes."""
        budget, without = self.budget, self._settings.without
        return BoxPropagator(self._network, self._tag, checkpoint, budget=budget, without=without)

    def attacking(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        searchers, alike = self._mesh.along(Axis.DOMAINS), self._mesh.beside(Axis.DOMAINS)
        # Ranks that share the weights go through the network together.
        together = self._strategy.same_ranks(Axis.WEIGHTS, Axis.DOMAINS)
        if searchers.size == 1 or together:
            return self._alike(deadline, confirmation)
        return Apart(searchers, deadline, confirmation, name="attack", alike=alike)

    def sharing(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        searchers, alike = self._mesh.along(Axis.DOMAINS), self._mesh.beside(Axis.DOMAINS)
        if searchers.size == 1:
            return self._alike(deadline, confirmation)
        asked = self._strategy.same_ranks(Axis.WEIGHTS, Axis.DOMAINS)
        on_request = self._weights.on_request if asked and self._weights is not None else None
        return Apart(searchers, deadline, confirmation, on_request, alike=alike)

    def _alike(self, deadline: Deadline, confirmation: Confirmation) -> Alike:
        return Alike(deadline.check, confirmation, self._mesh.world.decide, deadline.passed)

    def propagator(
        self, method: Method, deadline: Deadline, watched: Callable[[Rows], Rows]
    ) -> Propagator:
        """For bounds by one method, whatever they prove; `watched` goes around the specs axis."""
        checkpoint, rows, _ = self._rows(deadline)
        settings = replace(self._settings, method=method)
        return Propagator(self._network, settings, self._tag, checkpoint, watched(rows))

    def _rows(self, deadline: Deadline) -> tuple[Callable[[], None], Rows, Callable[[float], bool]]:
        """Who bounds which rows, and how the clock is asked meanwhile, for all and for a share."""
        if not self._strategy.row_axes:
            return deadline.check, WholeRows(), deadline.passed
        sharers, alike = self._mesh.sharers, self._mesh.beside_sharers
        if self._strategy.same_ranks(Axis.WEIGHTS, Axis.SPECS) and self._weights is not None:
            shared = SharedRows(sharers, lockstep=True, apart=self._weights.rows_apart)
            return deadline.check, shared, deadline.passed

        def check() -> None:
            deadline.check_in(alike)

        def passed(share: float) -> bool:
            return deadline.passed(share, alike)

        return check, SharedRows(sharers, lockstep=False, check=deadline.check), passed
