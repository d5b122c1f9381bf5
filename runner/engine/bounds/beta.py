"""β-CROWN over batches of sub-domains: α and β of the specs' rows, intermediate bounds fixed.

Sub-domains differ in their phases; the box and the bounds of the unstable neurons are the root's,
cut at zero where a neuron is split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.ascent import MovingParts, ProjectedAdam
from runner.engine.bounds.backward import (
    Charges,
    Frontier,
    Relaxations,
    WholeCharges,
    advance,
    concretize,
    frontier_at,
    local_interval,
)
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.planes import Above, NodePlanes
from runner.engine.bounds.rounding import LEDGER
from runner.engine.bounds.space import Space, Splittable
from runner.engine.bounds.split import SplitSpace
from runner.engine.bounds.split_relu import SplitRelaxation
from runner.engine.bounds.subdomains import Inspection, Subdomains
from runner.engine.bounds.tagging import Tagger

# Open sub-domains go on alone, in copies, once they are at most this share of their batch.
ALONE_SHARE = 0.7
# A neuron's β is counted in units of at least this share of its layer's.
LEAST_SCALE = 0.1


S = TypeVar("S", bound=Space[Splittable])
L = TypeVar("L")


@dataclass(frozen=True)
class BetaSettings:
    """Adam's; a step is in units of the multipliers: slopes, and β over its scale.

    From `patience` iterations on (None: never), a sub-domain is given up that would not reach its
    goal if all iterations left gained as much as those before, and that has gained the share
    `gain` of what its parent missed: another split gains more than these iterations.

    `many`: whether parameters of what takes many values (a product of matrices, the sums of a
    softmax) move, too: nearly all that there are, of which a split changes little.
    """

    iterations: int = 20
    many: bool = True
    patience: int | None = None
    gain: float = 0.05
    step: float = 0.2
    decay: float = 0.95
    momenta: tuple[float, float] = (0.7, 0.9)


class DomainBounds(Generic[S, L], ABC):
    """Lower bounds of rows over sub-domains of one box. Those on the way to a proof are not charged
    for their rounding; the proof itself is one pass with the multipliers that were found.

    `intervals`: of every node before `start`, [1, *shape]; rows are of that node, the output where
    none is named. `scale` [V]: the unit of each neuron's β.
    """

    def __init__(
        self,
        network: BoundNetwork,
        space: S,
        intervals: dict[str, Interval],
        scale: Tensor,
        tag: Tagger,
        checkpoint: Callable[[], None],
        start: str | None = None,
    ) -> None:
        self.space = space
        self.start = start or network.graph.output
        self.scale = scale
        self._network = network
        self.intervals = intervals
        self._box = intervals[network.graph.input.name]
        self._tag = tag
        self._checkpoint = checkpoint

    def whole(self, values: Tensor) -> Tensor:
        """Values [B, V] of this rank's unstable neurons to those of all [B, N]."""
        parts = []
        for node, part in zip(self.space.nodes, values.split(self.space.slots, 1), strict=True):
            placed = values.new_zeros((len(values), len(node.neurons)))
            placed[:, node.own] = part
            parts.append(self._network.features.counted(node.name, placed))
        return self._network.features.total(torch.cat(parts, 1))

    def bound(self, domains: Subdomains, *, proven: bool = False) -> Tensor:
        """[K, B], with the multipliers as they are; `proven`: they hold in real arithmetic."""
        self._checkpoint()
        charges = WholeCharges(self._network, self.intervals) if proven else None
        with torch.no_grad(), self._tag.kind(Memory.A):
            relaxations = self._relaxations(domains)
            start, parts = self._start(domains), self._parts(domains.multipliers)
            done = self._passed(start, relaxations, parts, charges)
            return concretize(self._network, done, self._box, charge=proven)

    def optimized(
        self,
        domains: Subdomains,
        goal: Tensor,
        settings: BetaSettings,
        parents: Tensor | None = None,
        finished: Callable[[bool], bool] = bool,
    ) -> tuple[Tensor, Tensor]:
        """The best bounds [K, B] of all iterations, and the multipliers [K, B, V] they came from.

        A sub-domain is done, whatever its other rows are, when one exceeds its goal [K, B].
        `parents`: margins [B] that were proved before; without them, none is given up. `finished`:
        as of `Rows`.
        """
        best = torch.full_like(goal, -torch.inf, dtype=domains.multipliers.dtype)
        with self._tag.kind(Memory.ALPHA):
            found = domains.multipliers.clone()
        alive = torch.arange(len(domains), device=goal.device)
        start, relaxations, moving, ascent = self._ascent(domains, settings)
        done = False
        for iteration in range(settings.iterations):
            self._checkpoint()
            last = iteration == settings.iterations - 1
            with self._tag.kind(Memory.A), torch.set_grad_enabled(not last):
                passed = self._passed(start, relaxations, moving.all(ascent.values))
                bound = concretize(self._network, passed, self._box)
            if not done:
                with torch.no_grad():
                    better = _raised(best, bound.detach(), alive)
                    with self._tag.kind(Memory.ALPHA):
                        moving.keep(found, ascent.values, better, alive)
            if iteration == 0:
                first = best.clone()
            open_ = ~(best > goal).any(0)[alive]
            if (
                parents is not None
                and settings.patience is not None
                and iteration + 1 >= settings.patience
            ):
                left = (settings.iterations - iteration - 1) / max(1, iteration)
                open_ &= ~_hopeless(
                    first, best, goal, left, parents.to(goal) * (1 - settings.gain)
                )[alive]
            done = done or not bool(open_.any())
            if last or finished(done):
                break
            with self._tag.kind(Memory.A):
                gradients = torch.autograd.grad(bound.sum(), ascent.values)
            with torch.no_grad(), self._tag.kind(Memory.ALPHA):
                ascent.step(gradients)
            if not done and int(open_.sum()) <= ALONE_SHARE * len(alive):
                index = open_.nonzero()[:, 0]
                alive, domains = alive[index], domains.select(index)
                ascent.keep(index)
                moving = moving.select(index)
                start, relaxations = self._fixed(domains)
        return best, found

    def _ascent(
        self, domains: Subdomains, settings: BetaSettings
    ) -> tuple[Frontier, L, MovingParts, ProjectedAdam]:
        start, relaxations = self._fixed(domains)
        with self._tag.kind(Memory.ALPHA):
            parts = self._parts(domains.multipliers)
            moving = MovingParts(parts, [self._moves(n, settings) for n in range(len(parts))])
            values = [part.clone().requires_grad_() for part in moving.some(moving.first)]
            most, least = self._limits(domains)
            limits = moving.some(most), None if least is None else moving.some(least)
            ascent = ProjectedAdam(values, settings.step, settings.decay, settings.momenta, *limits)
        return start, relaxations, moving, ascent

    def _moves(self, part: int, settings: BetaSettings) -> bool:
        """Whether a part of the multipliers does."""
        return True

    def _fixed(self, domains: Subdomains) -> tuple[Frontier, L]:
        """What no multiplier changes: the way to the first relaxed node, and the relaxations."""
        with torch.no_grad(), self._tag.kind(Memory.A):
            start = advance(self._network, self._start(domains), {}, {}, stop_at_relaxed=True)
        return start, self._relaxations(domains)

    def _start(self, domains: Subdomains) -> Frontier:
        network, name, rows = self._network, self.start, domains.rows
        shaped = rows.reshape(*rows.shape[:2], *network.graph.node(name).shape)
        return frontier_at(network, name, network.features.local(name, shaped, 2))

    def _constant(self, frontier: Frontier) -> Tensor:
        """Of a frontier that has reached the input, with what rounding has cost taken off."""
        constant = frontier.constant.to(LEDGER)
        if frontier.error is not None:
            constant = constant - frontier.error
        return self._network.features.total(constant)

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Self: ...

    @abstractmethod
    def initial(self, domains: Interval, rows: int) -> Tensor:
        """Multipliers [rows, B, V] to begin with, of limits [B, N]."""

    @abstractmethod
    def inspect(self, domains: Subdomains) -> Inspection:
        """`bound`, and what it passes."""

    @abstractmethod
    def scaled(self, seen: Inspection) -> Tensor:
        """The unit of each β [V] that fits what was seen."""

    @abstractmethod
    def _limits(self, domains: Subdomains) -> tuple[list[Tensor], list[Tensor] | None]:
        """The greatest values of multipliers, part by part, and the least where those are not 0."""

    @abstractmethod
    def _relaxations(self, domains: Subdomains) -> L: ...

    @abstractmethod
    def _parts(self, multipliers: Tensor) -> list[Tensor]: ...

    @abstractmethod
    def _passed(
        self,
        start: Frontier,
        relaxations: L,
        parts: list[Tensor],
        charges: Charges | None = None,
    ) -> Frontier:
        """To the input."""


def _raised(best: Tensor, bound: Tensor, alive: Tensor) -> Tensor:
    """Which bounds [K, B] are better than the best ones before, which they take the place of."""
    before = best[:, alive]
    better = bound > before
    best[:, alive] = torch.where(better, bound, before)
    return better


class SplitBounds(DomainBounds[SplitSpace, Relaxations]):
    """Where ReLUs are split: one multiplier a neuron: its slope, β, or share of a plane.

    `planes`: of some nodes' neurons; none as long as nobody has set them.
    """

    planes: Mapping[str, NodePlanes] = MappingProxyType({})

    def to(self, dtype: torch.dtype) -> SplitBounds:
        intervals = {name: interval.to(dtype) for name, interval in self.intervals.items()}
        space, scale = self.space.to(dtype), self.scale.to(dtype)
        found = SplitBounds(
            self._network, space, intervals, scale, self._tag, self._checkpoint, self.start
        )
        found.planes = {name: planes.to(dtype) for name, planes in self.planes.items()}
        return found

    def initial(self, domains: Interval, rows: int) -> Tensor:
        """CROWN's adaptive slopes as multipliers [rows, B, V], of inputs [B, N]."""
        with self._tag.kind(Memory.ALPHA):
            adaptive = (domains.upper > -domains.lower).to(domains.lower)
            return adaptive[:, self.space.columns].expand(rows, -1, -1).clone()

    def inspect(self, domains: Subdomains, *, proven: bool = False) -> Inspection:
        """`proven`: bounds and what they come from hold in real arithmetic."""
        self._checkpoint()
        charges = WholeCharges(self._network, self.intervals) if proven else None
        with torch.no_grad(), self._tag.kind(Memory.A):
            relaxations = self._relaxations(domains)
            slopes = self._by_node(self._parts(domains.multipliers))
            splits = {node.name: node for node in self.space.nodes}
            seen = {}
            frontier = self._start(domains)
            while frontier.todo:
                node = frontier.todo[0]
                if node.name in splits:
                    columns = frontier.pending[node.name].flatten(2)
                    seen[node.name] = columns.index_select(2, splits[node.name].at)
                one = replace(frontier, todo=frontier.todo[:1])
                after = advance(self._network, one, relaxations, slopes, charges)
                frontier = replace(after, todo=frontier.todo[1:])
            bounds = concretize(self._network, frontier, self._box, charge=proven)
            neurons = torch.cat([seen[node.name] for node in self.space.nodes], 2)
            inputs = frontier.pending[self._network.graph.input.name]
            return Inspection(bounds, neurons, inputs, self._constant(frontier))

    def attained(self, domains: Subdomains) -> tuple[Tensor, Tensor]:
        """Inputs and outputs [K, B, V] of this rank's unstable neurons at a point where the relaxed
        sub-domains attain their bounds, as they are.
        """
        self._checkpoint()
        with torch.enable_grad(), self._tag.kind(Memory.A):
            shape = 2, *domains.multipliers.shape[:2]
            probes = [
                domains.multipliers.new_zeros((*shape, slots)).requires_grad_()
                for slots in self.space.slots
            ]
            relaxations = self._relaxations(domains, probes)
            start, parts = self._start(domains), self._parts(domains.multipliers)
            bound = concretize(self._network, self._passed(start, relaxations, parts), self._box)
            before, after = torch.cat(torch.autograd.grad(bound.sum(), probes), 3)
            return before, after

    def scaled(self, seen: Inspection) -> Tensor:
        """The unit of each multiplier [V] that fits what was seen."""
        sizes = seen.neurons.abs().mean((0, 1)).split(self.space.slots)
        return torch.cat([units(size) for size in sizes])

    def _limits(self, domains: Subdomains) -> tuple[list[Tensor], list[Tensor] | None]:
        """The greatest values of multipliers, part by part, and the least where those are not 0."""
        limits = torch.where(domains.phases[:, self.space.columns] == 0, 1.0, torch.inf)
        wide = limits.to(self.scale).expand_as(domains.multipliers)
        return list(wide.split(self.space.slots, 2)), None

    def _passed(
        self,
        start: Frontier,
        relaxations: Relaxations,
        parts: list[Tensor],
        charges: Charges | None = None,
    ) -> Frontier:
        return advance(self._network, start, relaxations, self._by_node(parts), charges)

    def _relaxations(
        self, domains: Subdomains, probes: Sequence[Tensor] | None = None
    ) -> Relaxations:
        """Of every relaxed node: ReLUs as the domains say, others as over the whole box."""
        network = self._network
        scales = self.scale.split(self.space.slots)
        with torch.no_grad(), self._tag.kind(Memory.BETA):
            split = {}
            for index, (node, scale) in enumerate(zip(self.space.nodes, scales, strict=True)):
                columns = node.start + node.own
                planes, sets = self.planes.get(node.name), domains.sets
                above = None if planes is None or sets is None else Above(planes, sets)
                split[node.name] = SplitRelaxation(
                    node,
                    domains.before.lower[:, columns],
                    domains.before.upper[:, columns],
                    domains.phases[:, columns],
                    scale,
                    above,
                    None if probes is None else probes[index],
                )
            others = {}
            for other in network.ancestors(self.start):
                name, before = other.name, other.inputs[0]
                if name in split or name not in network.relaxed:
                    continue
                local = local_interval(network, before, self.intervals[before])
                shape = (len(domains), *local.lower.shape[1:])
                wide = Interval(local.lower.expand(shape), local.upper.expand(shape))
                others[name] = network.relaxed[name].relax(wide)
        return {**split, **others}

    def _parts(self, multipliers: Tensor) -> list[Tensor]:
        return list(multipliers.split(self.space.slots, 2))

    def _by_node(self, parts: list[Tensor]) -> dict[str, Tensor]:
        return {node.name: part for node, part in zip(self.space.nodes, parts, strict=True)}


def units(sizes: Tensor) -> Tensor:
    """Of the β of one node's neurons, whose coefficients have these sizes [V]."""
    least = max(1e-6, LEAST_SCALE * float(sizes.sum()) / max(1, len(sizes)))
    return sizes.clamp(min=least)


def _hopeless(first: Tensor, best: Tensor, goal: Tensor, left: float, enough: Tensor) -> Tensor:
    """Sub-domains [B] that gained enough, and would miss their goals if they gained `left` times
    as much again.
    """
    hoped = best + left * (best - first)
    return ~(hoped > goal).any(0) & ((best - goal).amax(0) > enough)
