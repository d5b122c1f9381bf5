"""auto_LiRPA as it is, held against the project's own bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from runner.contract.errors import InstanceError
from runner.contract.strategy import Strategy
from runner.contract.vocabulary import Cause, Memory, Method
from runner.engine.bounds.budget import budget_of
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.tagging import NoTagger, Tagger
from runner.engine.clock import Deadline
from runner.engine.driver_engine import DriverEngine
from runner.engine.engines import Bounding
from runner.engine.finding import Confirmation
from runner.engine.incomplete import ladder
from runner.engine.layout.group import Group
from runner.engine.network.graph import Dtype
from runner.engine.network.load import load_module
from runner.engine.search.cases import OpenCase
from runner.engine.search.sharing import Alike, Sharing
from runner.engine.specs import Room, Specs, box_around, no_room
from runner.engine.targets import Target
from runner.problem.property.model import Property


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

    def guide(self, checkpoint: Callable[[], None]) -> None:
        """auto_LiRPA's bounds are of one box at a time."""

    def attacking(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        return self.sharing(deadline, confirmation)

    def sharing(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        return Alike(deadline.check, confirmation, passed=deadline.passed)


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

    def run(self, tightest: Method, *, splits: bool = False, searched: bool = False) -> None:
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

    def enumerate_cells(self) -> None:
        """auto_LiRPA's bounds are of whole boxes."""

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
