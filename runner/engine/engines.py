"""Who bounds and on what network: the driver under a strategy, or auto_LiRPA as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from runner.contract.errors import InstanceError
from runner.contract.layout import Axis
from runner.contract.strategy import Engine, Strategy
from runner.contract.vocabulary import Cause, Memory, Method
from runner.engine.attack.interval_steps import IntervalSteps
from runner.engine.attack.pgd import Guide, Target
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.boxes import BoxPropagator, batch_boxes
from runner.engine.bounds.budget import Budget, budget_of
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.propagate import Propagator, Settings
from runner.engine.bounds.rows import Rows, WholeRows
from runner.engine.bounds.tagging import NoTagger, Tagger
from runner.engine.bounds.tiles import row_block
from runner.engine.clock import Deadline
from runner.engine.exact import excluded_exactly
from runner.engine.finding import Confirmation
from runner.engine.incomplete import Incomplete, OpenCase, TimeShares, ladder
from runner.engine.layout.block_owners import plan_blocks
from runner.engine.layout.blocked_weights import BlockedWeights
from runner.engine.layout.feature_shares import column_row_zones, plan_features
from runner.engine.layout.group import Group
from runner.engine.layout.mesh import Mesh
from runner.engine.layout.shared_rows import SharedRows
from runner.engine.layout.tensor import ShardedFeatures
from runner.engine.network.blocks import weights_of
from runner.engine.network.graph import Dtype
from runner.engine.network.load import load_module
from runner.engine.network.prepared import PreparedWeights, read_graph
from runner.engine.search.sharing import Alike, Apart, Sharing
from runner.engine.specs import Room, Specs, box_around, no_room
from runner.problem.property.model import Property


class Bounding(Protocol):
    """The incomplete phase of one instance."""

    method: Method

    def run(self, tightest: Method) -> None:
        """Methods from the cheapest to `tightest`, until nothing is open; may raise."""
        ...

    def close(self, target: Target) -> None:
        """A disjunct that is not to be bounded any more."""
        ...

    @property
    def open_targets(self) -> list[Target]: ...

    @property
    def open_cases(self) -> list[OpenCase]:
        """What a branch and bound can go on with; none where the engine knows none."""
        ...

    @property
    def lower_bound(self) -> float: ...

    @property
    def progress(self) -> str:
        """How far the bounds of layers came, in words."""
        ...


class VerificationEngine(Protocol):
    """A loaded network: what the phases of a verification need of it."""

    input_shape: tuple[int, ...]
    neurons: int
    weight_bytes: int
    budget: Budget
    dtype: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        """[B, *input_shape] -> [B, outputs], differentiable."""
        ...

    def exact(self, x: Tensor) -> Tensor:
        """The same in float64, whatever the engine computes in."""
        ...

    def bounding(self, instance: Property, deadline: Deadline, room: Room = no_room) -> Bounding:
        """`room`: how far above its limit each row must be proved."""
        ...

    def excluded_exactly(self, instance: Property, target: Target) -> bool:
        """Whether rational arithmetic proves at once that no point meets a disjunct."""
        ...

    def guide(self, deadline: Deadline) -> Guide | None:
        """What an attack by intervals steps by; None where there are no bounds of boxes."""
        ...

    def sharing(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        """Which sub-problems of a branch and bound are this rank's."""
        ...


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
    ) -> None:
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

    def guide(self, deadline: Deadline) -> Guide:
        return IntervalSteps(
            self.boxes(deadline.check), batch_boxes(self.graph, self.budget), self._tag
        )

    def boxes(self, checkpoint: Callable[[], None]) -> BoxPropagator:
        """For bounds over many small boxes."""
        return BoxPropagator(self._network, self._tag, checkpoint, budget=self.budget)

    def sharing(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        searchers, world = self._mesh.along(Axis.DOMAINS), self._mesh.world
        if searchers.size == 1:
            return Alike(deadline.check, confirmation, world.decide)
        asked = self._strategy.same_ranks(Axis.WEIGHTS, Axis.DOMAINS)
        on_request = self._weights.on_request if asked and self._weights is not None else None
        alike = self._mesh.beside(Axis.DOMAINS)
        return Apart(searchers, deadline, confirmation, on_request, alike=alike)

    def propagator(
        self, method: Method, deadline: Deadline, watched: Callable[[Rows], Rows]
    ) -> Propagator:
        """For bounds by one method, whatever they prove; `watched` goes around the specs axis."""
        checkpoint, rows, _ = self._rows(deadline)
        settings = replace(self._settings, method=method)
        return Propagator(self._network, settings, self._tag, checkpoint, watched(rows))

    def _rows(self, deadline: Deadline) -> tuple[Callable[[], None], Rows, Callable[[float], bool]]:
        """Who bounds which rows, and how the clock is asked meanwhile, for all and for a share."""
        if Axis.SPECS not in self._strategy.sharded:
            return deadline.check, WholeRows(), deadline.passed
        sharers, alike = self._mesh.along(Axis.SPECS), self._mesh.beside(Axis.SPECS)
        if self._strategy.same_ranks(Axis.WEIGHTS, Axis.SPECS) and self._weights is not None:
            shared = SharedRows(sharers, lockstep=True, apart=self._weights.rows_apart)
            return deadline.check, shared, deadline.passed

        def check() -> None:
            deadline.check_in(alike)

        def passed(share: float) -> bool:
            return deadline.passed(share, alike)

        return check, SharedRows(sharers, lockstep=False, check=deadline.check), passed


class LirpaEngine:
    """auto_LiRPA's own `compute_bounds` on the torch module: what a user has today."""

    def __init__(self, network: Path, prepared: Path, device: torch.device, tag: Tagger) -> None:
        """`prepared`: what its claims are proved on."""
        with tag.kind(Memory.WEIGHTS):
            loaded = load_module(network)
            if loaded.dtype is not Dtype.FLOAT32:
                raise InstanceError(
                    Cause.UNSUPPORTED_INSTANCE,
                    f"{network}: a {loaded.dtype} network, and auto_LiRPA is run in float32; "
                    "use another strategy",
                )
            self._module = loaded.module.to(device)
        self._prepared = prepared
        self._source = str(network)
        self._device = device
        self.dtype = torch.float32
        self.budget = budget_of(device)
        self.input_shape = loaded.input_shape
        self.weight_bytes = sum(value.nbytes for value in self._module.state_dict().values())
        self.neurons = math.prod(loaded.input_shape) + self._activations()

    def _activations(self) -> int:
        """Neurons of all layers, counted in one forward pass."""
        total = 0

        def count(module: torch.nn.Module, inputs: object, output: object) -> None:
            nonlocal total
            if isinstance(output, Tensor):
                total += output.numel()

        leaves = [module for module in self._module.modules() if not list(module.children())]
        hooks = [leaf.register_forward_hook(count) for leaf in leaves]
        with torch.no_grad():
            self.forward(torch.zeros(1, *self.input_shape, device=self._device))
        for hook in hooks:
            hook.remove()
        return total

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self._module(x)
        return outputs.flatten(1)

    def bounding(self, instance: Property, deadline: Deadline, room: Room = no_room) -> Bounding:
        def proof() -> Bounding:
            return self._driver.bounding(instance, deadline, room)

        boxes = [box_around(c, self.input_shape, self._device, self.dtype) for c in instance.cases]
        specs = [Specs.of(case, self._device, room) for case in instance.cases]
        return LirpaBounding(self._module, boxes, specs, deadline.check, proof, self._source)

    def excluded_exactly(self, instance: Property, target: Target) -> bool:
        """Not auto_LiRPA's."""
        return False

    def exact(self, x: Tensor) -> Tensor:
        with _disable_current_modes():
            return self._driver.exact(x)

    @cached_property
    def _driver(self) -> DriverEngine:
        """What auto_LiRPA's claims are held against; nothing of it is measured."""
        with _disable_current_modes():
            alone = Strategy("baseline", parallel=False)
            return DriverEngine(self._prepared, alone, Group(), self._device, NoTagger())

    def guide(self, deadline: Deadline) -> None:
        """auto_LiRPA's bounds are of one box at a time."""

    def sharing(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        return Alike(deadline.check, confirmation)


class LirpaBounding:
    """Every case with every method anew, all specs of a case at once.

    auto_LiRPA's bounds are as its arithmetic rounds them, and prove nothing by themselves: what
    they exclude is excluded once the driver's bounds by the same methods (`proof`) say so as well.
    Those are not measured: no tensor of them is followed.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        boxes: list[Interval],
        specs: list[Specs],
        checkpoint: Callable[[], None],
        proof: Callable[[], Bounding],
        source: str = "",
    ) -> None:
        """`source`: names the network's file."""
        self._module = module
        self._source = source
        self._boxes = boxes
        self._specs = specs
        self._margins = [
            specs.thresholds.new_full((specs.disjuncts,), -torch.inf) for specs in self._specs
        ]
        self._checkpoint = checkpoint
        self._make_proof = proof
        self._proof: Bounding | None = None
        self._closed: set[Target] = set()
        self.method = Method.IBP
        self.progress = ""

    def run(self, tightest: Method) -> None:
        from runner.engine.network.lirpa import lirpa_bounds  # slow to import, and only used here

        for method in ladder(tightest):
            for index, specs in enumerate(self._specs):
                if self._claimed_open(index):
                    self.method = method
                    self._checkpoint()
                    box = self._boxes[index]
                    rows = specs.rows.to(box.lower)
                    found = lirpa_bounds(
                        self._module, box.lower[0], box.upper[0], rows, method, self._source
                    )
                    margins = specs.margins(found.double())
                    # fmax: bounds that overflowed (not a number) say nothing.
                    self._margins[index] = torch.fmax(self._margins[index], margins)
            if not any(map(self._claimed_open, range(len(self._specs)))):
                self._prove(method)
                return

    def _prove(self, method: Method) -> None:
        with _disable_current_modes():
            if self._proof is None:
                self._proof = self._make_proof()
                for target in self._closed:
                    self._proof.close(target)
            self._proof.run(method)

    def close(self, target: Target) -> None:
        self._closed.add(target)

    def _claimed_open(self, index: int) -> list[int]:
        """Disjuncts of a case that auto_LiRPA does not exclude."""
        found = (self._margins[index] <= 0).nonzero()[:, 0].tolist()
        return [disjunct for disjunct in found if Target(index, disjunct) not in self._closed]

    @property
    def open_targets(self) -> list[Target]:
        if self._proof is not None:
            return self._proof.open_targets
        return [
            Target(case, disjunct)
            for case in range(len(self._specs))
            for disjunct in self._claimed_open(case)
        ]

    @property
    def open_cases(self) -> list[OpenCase]:
        return []

    @property
    def lower_bound(self) -> float:
        bounds = [float(margins.min()) for margins in self._margins if len(margins)]
        return min(bounds, default=math.inf)


def engine_for(
    strategy: Strategy,
    network: Path,
    prepared: Path,
    group: Group,
    device: torch.device,
    tag: Tagger,
    budget: Budget | None = None,
) -> VerificationEngine:
    """`budget`: what suits the device where none is given; auto_LiRPA knows none."""
    if strategy.engine is Engine.LIRPA:
        return LirpaEngine(network, prepared, device, tag)
    return DriverEngine(prepared, strategy, group, device, tag, budget)
