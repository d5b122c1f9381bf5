"""Bounds over batches of sub-domains of a network that bends anywhere: its lines are those of each
sub-domain's own limits, and what the limits say beside is in β (GenBaB, Shi et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds import exp_sums
from runner.engine.bounds.backward import Charges, Frontier, advance, concretize, local_interval
from runner.engine.bounds.bent_space import BentSpace, Variables
from runner.engine.bounds.beta import BetaSettings, DomainBounds, units
from runner.engine.bounds.bundles import bundle, bundle_where
from runner.engine.bounds.exp_sums import ExpSumsRelaxation
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.mixed import Bundle, MixedRelaxation, Parametrised
from runner.engine.bounds.network import PLAIN, BoundNetwork
from runner.engine.bounds.pull import Pull
from runner.engine.bounds.relu import ReluRelaxation
from runner.engine.bounds.rule_kinds import RuleRelaxation
from runner.engine.bounds.subdomains import Inspection, Subdomains
from runner.engine.bounds.tagging import Tagger
from runner.engine.network.graph import Node, Op

# Each value takes many: they have most of all parameters, and no costs of their own, as splits that
# were scored by what products of matrices and softmaxes lose gained nothing.
_OF_MANY = frozenset({Op.MAXPOOL, Op.MATMUL, Op.EXP_SUMS})
# What a line costs where it may be dearest, as a share of what it costs where the bound is taken.
MIDDLE_SHARE = 0.1


@dataclass(frozen=True)
class BentInspection(Inspection):
    """`neurons`: [K, B, size], what the lines of what takes a neuron cost where it would be cut.
    `pulled`: coefficients [K, B, V] of the neurons that can be split.
    """

    pulled: Tensor


@dataclass(frozen=True)
class _Lines(Mapping[str, RuleRelaxation | ReluRelaxation]):
    """Relaxations over B sub-domains; `limits`: bounds of every node, `own`: of the neurons that
    can be split and are this rank's [B, V], by node.
    """

    relaxations: dict[str, RuleRelaxation | ReluRelaxation]
    limits: dict[str, Interval]
    own: dict[str, Interval]

    def __getitem__(self, name: str) -> RuleRelaxation | ReluRelaxation:
        return self.relaxations[name]

    def __iter__(self) -> Any:
        return iter(self.relaxations)

    def __len__(self) -> int:
        return len(self.relaxations)


class BentBounds(DomainBounds[BentSpace, _Lines]):
    """Multipliers of a row: of each relaxed node that has parameters, then β of what can be split.

    A ReLU's are those of its neurons that are unstable in the root.
    """

    def __init__(
        self,
        network: BoundNetwork,
        space: BentSpace,
        intervals: dict[str, Interval],
        scale: Tensor,
        tag: Tagger,
        checkpoint: Callable[[], None],
    ) -> None:
        super().__init__(network, space, intervals, scale, tag, checkpoint)
        self._unstable: dict[str, Tensor] = {}
        self._bundles: dict[str, Bundle] = {}
        self._others: dict[torch.dtype, BentBounds] = {}
        self._sums: dict[str, ExpSumsRelaxation] = {}
        self._tuned: list[tuple[str, int]] = []
        on_way = {node.name for node in network.ancestors(network.graph.output)}
        for node in network.graph.nodes:
            if node.name in network.relaxed and node.name in on_way and node.op is not Op.MAXPOOL:
                self._tuned.append((node.name, self._count(node)))

    def _count(self, node: Node) -> int:
        """Parameters of a relaxed node, of one row."""
        before = self._local(node.inputs[0], self.intervals[node.inputs[0]])
        if node.op is Op.RELU:
            crossing = (before.lower < 0) & (before.upper > 0)
            self._unstable[node.name] = crossing.flatten().nonzero()[:, 0]
            return len(self._unstable[node.name])
        if node.op not in _OF_MANY:
            return before.lower[0].numel() // (2 if node.op is Op.PRODUCT else 1)
        made = self._network.relaxed[node.name].relax(before)
        if not isinstance(made, Parametrised):
            raise TypeError(f"lines of {node.op} have no parameters (node {node.name})")
        return made.initial(1).shape[2]

    def _moves(self, part: int, settings: BetaSettings) -> bool:
        if settings.many or part >= len(self._tuned):
            return True
        return self._network.graph.node(self._tuned[part][0]).op not in _OF_MANY

    @property
    def slots(self) -> list[int]:
        return [count for _, count in self._tuned] + self.space.slots

    def to(self, dtype: torch.dtype) -> BentBounds:
        """What is made of the root once there, is made once in that precision, too."""
        if dtype not in self._others:
            intervals = {name: interval.to(dtype) for name, interval in self.intervals.items()}
            scale = self.scale.to(dtype)
            made = BentBounds(
                self._network, self.space, intervals, scale, self._tag, self._checkpoint
            )
            self._others[dtype] = made
        found = self._others[dtype]
        found.scale = self.scale.to(dtype)
        return found

    def initial(self, domains: Interval, rows: int) -> Tensor:
        batch, parts = len(domains.lower), []
        with self._tag.kind(Memory.ALPHA):
            for name, count in self._tuned:
                part = domains.lower.new_full((count,), 0.5)
                if name in self._unstable:
                    before = self._network.graph.node(name).inputs[0]
                    mine = self._local(before, self.intervals[before])
                    adaptive = (mine.upper > -mine.lower).flatten()[self._unstable[name]]
                    part = adaptive.to(part)
                parts.append(part)
            parts.append(domains.lower.new_zeros(sum(self.space.slots)))
            return torch.cat(parts).expand(rows, batch, -1).clone()

    def scaled(self, seen: Inspection) -> Tensor:
        if not isinstance(seen, BentInspection):
            raise TypeError("units of β come from an inspection of such bounds")
        sizes = seen.pulled.abs().mean((0, 1)).split(self.space.slots)
        return torch.cat([units(size) for size in sizes])

    def inspect(self, domains: Subdomains) -> BentInspection:
        self._checkpoint()
        network = self._network
        with torch.no_grad(), self._tag.kind(Memory.A):
            lines, parts = self._relaxations(domains), self._parts(domains.multipliers)
            slopes, pulls = self._slopes(lines, parts), self._pulls(lines, parts)
            variables = {node.name: node for node in self.space.nodes}
            pulled = {
                node.name: domains.multipliers.new_zeros((*domains.rows.shape[:2], len(node.at)))
                for node in self.space.nodes
            }
            passed: dict[str, Tensor] = {}
            frontier = self._start(domains)
            while frontier.todo:
                node = frontier.todo[0]
                rows = frontier.pending[node.name]
                if node.name in variables:
                    pulled[node.name] = rows.flatten(2).index_select(2, variables[node.name].at)
                if node.name in network.relaxed:
                    passed[node.name] = rows
                one = Frontier(frontier.pending, frontier.constant, frontier.todo[:1])
                after = advance(network, one, lines, slopes, pulls=pulls)
                frontier = Frontier(after.pending, after.constant, frontier.todo[1:])
            bounds = concretize(network, frontier, self._box)
            inputs = frontier.pending[network.graph.input.name]
            costs = self._costs(passed, self._at_least(inputs), lines, slopes)
            columns = torch.cat([pulled[node.name] for node in self.space.nodes], 2)
            scores, constant = self._scores(costs, pulled), self._constant(frontier)
            return BentInspection(bounds, scores, inputs, constant, columns)

    def _at_least(self, inputs: Tensor) -> dict[str, Tensor]:
        """Of every node, its values [K B, *shape] where the rows of the input are least."""
        network = self._network
        name = network.graph.input.name
        mine = self._local(name, self._box)
        corner = torch.where(inputs > 0, mine.lower, mine.upper).flatten(0, 1)
        x = corner.new_zeros((len(corner), *network.graph.input.shape))
        network.features.local(name, x, 1).copy_(corner)
        values = {name: network.features.total(x)}
        for node in network.graph.nodes[1:]:
            before = [values[name] for name in node.inputs]
            values[node.name] = network.rule(node.name).forward(*before)
        return values

    def _costs(
        self,
        passed: dict[str, Tensor],
        values: dict[str, Tensor],
        lines: _Lines,
        slopes: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """By inputs of relaxed nodes: [K, B, *before]."""
        costs: dict[str, Tensor] = {}
        for name, rows in passed.items():
            node = self._network.graph.node(name)
            before = node.inputs[0]
            local = self._network.features.local(before, values[before], 1)
            x = local.reshape(*rows.shape[:2], *local.shape[1:])
            cost = self._cost(node, rows, x, lines, slopes)
            costs[before] = costs[before] + cost if before in costs else cost
        return costs

    def _cost(
        self, node: Node, rows: Tensor, x: Tensor, lines: _Lines, slopes: dict[str, Tensor]
    ) -> Tensor:
        """By how much each neuron's line lies below its function at x [K, B, *before]: over all
        neurons, that is what the bound lies below the network there. And some of what it does in
        the middle of its limits, or at a ReLU's kink. Of each input of a product the whole.
        """
        mine = self._local(node.inputs[0], lines.limits[node.inputs[0]])
        x = torch.minimum(torch.maximum(x, mine.lower), mine.upper)
        relaxation, slope = lines[node.name], slopes.get(node.name)
        if isinstance(relaxation, ReluRelaxation):
            lower, upper = mine.lower, mine.upper
            crossing = (lower < 0) & (upper > 0)
            steep = torch.where(crossing, upper / (upper - lower), 0.0)
            negative, positive = rows.clamp(max=0).neg(), rows.clamp(min=0)
            above = steep * (x - lower) - x.relu()
            alpha = torch.zeros_like(rows).flatten(2)
            if slope is not None:
                alpha = alpha.index_copy(2, relaxation.unstable, slope)
            below = x.relu() - alpha.reshape(rows.shape) * x
            at_x = torch.where(crossing, negative * above + positive * below, 0.0)
            return at_x + MIDDLE_SHARE * negative * torch.where(crossing, -steep * lower, 0.0)
        if not isinstance(relaxation, MixedRelaxation) or slope is None:
            return rows.new_zeros((*rows.shape[:2], *mine.lower.shape[1:]))
        found, offsets = relaxation.lines(rows, slope)
        inputs, forward = found.shape[2], self._network.relaxed[node.name].forward
        cost = torch.zeros_like(offsets)
        centre = mine.centre.nan_to_num(0.0, 0.0, 0.0).expand_as(x)
        for share, point in ((1.0, x), (MIDDLE_SHARE, centre)):
            value = forward(point.flatten(0, 1)).reshape(offsets.shape)
            line = (found * point.reshape(*x.shape[:2], inputs, -1)).sum(2) + offsets
            gap = (rows.flatten(2) * (value - line)).nan_to_num(0.0, 0.0, 0.0)
            cost = cost + share * gap.clamp(min=0)
        return cost.unsqueeze(2).expand(-1, -1, inputs, -1).reshape(x.shape)

    def _scores(self, costs: dict[str, Tensor], like: dict[str, Tensor]) -> Tensor:
        """Costs of inputs of relaxed nodes, moved to the neurons that can be split."""
        network = self._network
        found = {name: torch.zeros_like(values) for name, values in like.items()}
        for node in reversed(network.graph.nodes):
            if node.name not in costs:
                continue
            cost = costs.pop(node.name)
            if node.name in found:
                at = next(v.at for v in self.space.nodes if v.name == node.name)
                found[node.name] = cost.flatten(2).index_select(2, at)
            elif node.op in PLAIN:
                parts, _ = network.linear[node.name].backward(cost)
                for name, part in zip(node.inputs, parts, strict=True):
                    costs[name] = costs[name] + part.abs() if name in costs else part.abs()
        rows, batch = next(iter(like.values())).shape[:2]
        columns = torch.cat([found[node.name] for node in self.space.nodes], 2)
        return self.whole(columns.flatten(0, 1)).reshape(rows, batch, -1)

    def _relaxations(self, domains: Subdomains) -> _Lines:
        with torch.no_grad(), self._tag.kind(Memory.BETA):
            limits = self._limited(domains.before)
            made = {
                node.name: self._relaxed(node, limits)
                for node in self._network.graph.nodes
                if node.name in self._network.relaxed
            }
            own = {}
            for variables in self.space.nodes:
                columns = variables.start + variables.own
                lower, upper = domains.before.lower[:, columns], domains.before.upper[:, columns]
                own[variables.name] = Interval(lower, upper)
            return _Lines(made, limits, own)

    def _relaxed(self, node: Node, limits: dict[str, Interval]) -> RuleRelaxation | ReluRelaxation:
        """Lines of what no limit has changed are made once."""
        rule, before = self._network.relaxed[node.name], node.inputs[0]
        mine = self._local(before, limits[before])
        root = self._local(before, self._whole[before])
        if node.op is Op.EXP_SUMS:
            if node.name not in self._sums:
                self._sums[node.name] = exp_sums.relax(node, root)
            return exp_sums.relax_where(node, self._sums[node.name], root, mine)
        if node.op is Op.RELU or node.op in _OF_MANY:
            return rule.relax(mine)
        if node.name not in self._bundles:
            self._bundles[node.name] = bundle(node, root.lower, root.upper)
        whole, inputs = self._bundles[node.name], 2 if node.op is Op.PRODUCT else 1
        differs = (mine.lower != root.lower) | (mine.upper != root.upper)
        changed = differs.reshape(len(differs), inputs, -1).any(1)
        return MixedRelaxation(
            lambda: rule.relax(mine),
            lambda: bundle_where(node, whole, mine.lower, mine.upper, changed),
        )

    @cached_property
    def _whole(self) -> dict[str, Interval]:
        """Bounds of every node over the whole box: the root's, and what follows from these."""
        lower = {name: interval.lower for name, interval in self.intervals.items()}
        upper = {name: interval.upper for name, interval in self.intervals.items()}
        columns = Interval(self.space.columns_of(lower), self.space.columns_of(upper))
        return self._followed(columns, self.intervals, everywhere=True)

    def _limited(self, before: Interval) -> dict[str, Interval]:
        """Bounds of every node over domains [B, size]: those over the whole box, with what follows
        from the limits by interval arithmetic, as far as that moves any.
        """
        return self._followed(before, self._whole, everywhere=False)

    def _followed(
        self, before: Interval, known: Mapping[str, Interval], *, everywhere: bool
    ) -> dict[str, Interval]:
        network, batch = self._network, len(before.lower)
        variables = {node.name: node for node in self.space.nodes}
        found: dict[str, Interval] = {}
        moved: set[str] = set()
        for node in network.graph.nodes:
            of = known[node.name]
            wide = of.between(*(end.expand(batch, *end.shape[1:]) for end in of.ends))
            inner = wide
            if moved.intersection(node.inputs):
                inputs = [found[name] for name in node.inputs]
                inner = inner.intersect(network.rule(node.name).interval(*inputs))
            if node.name in variables:
                inner = _within(inner, variables[node.name], before)
            if everywhere or (inner is not wide and _is_narrower(inner, wide)):
                moved.add(node.name)
                wide = _ordered(inner)
            found[node.name] = wide
        return found

    def _limits(self, domains: Subdomains) -> tuple[list[Tensor], list[Tensor] | None]:
        rows = len(domains.rows)
        split = domains.phases[:, self.space.columns] != 0
        pull = torch.where(split, torch.inf, 0.0).to(self.scale).expand(rows, -1, -1)
        count = sum(count for _, count in self._tuned)
        most = torch.cat([pull.new_ones((*pull.shape[:2], count)), pull], 2)
        least = torch.cat([pull.new_zeros((*pull.shape[:2], count)), -pull], 2)
        return list(most.split(self.slots, 2)), list(least.split(self.slots, 2))

    def _parts(self, multipliers: Tensor) -> list[Tensor]:
        return list(multipliers.split(self.slots, 2))

    def _passed(
        self,
        start: Frontier,
        relaxations: _Lines,
        parts: list[Tensor],
        charges: Charges | None = None,
    ) -> Frontier:
        slopes, pulls = self._slopes(relaxations, parts), self._pulls(relaxations, parts)
        return advance(self._network, start, relaxations, slopes, charges, pulls=pulls)

    def _slopes(self, lines: _Lines, parts: list[Tensor]) -> dict[str, Tensor]:
        found = {}
        for (name, _), part in zip(self._tuned, parts[: len(self._tuned)], strict=True):
            relaxation = lines[name]
            if isinstance(relaxation, ReluRelaxation):
                at = torch.searchsorted(self._unstable[name], relaxation.unstable)
                part = part.index_select(2, at)
            found[name] = part
        return found

    def _pulls(self, lines: _Lines, parts: list[Tensor]) -> dict[str, Pull]:
        found = {}
        rest, scales = parts[len(self._tuned) :], self.scale.split(self.space.slots)
        for node, part, scale in zip(self.space.nodes, rest, scales, strict=True):
            own = lines.own[node.name]
            found[node.name] = Pull(node.at, own.lower, own.upper, part * scale)
        return found

    def _local(self, name: str, interval: Interval) -> Interval:
        return local_interval(self._network, name, interval)


def _within(interval: Interval, variables: Variables, limits: Interval) -> Interval:
    """Of a node [B, *shape], some of whose neurons have limits of domains [B, size]."""
    part = slice(variables.start, variables.stop)
    lower, upper = interval.lower.flatten(1).clone(), interval.upper.flatten(1).clone()
    at = variables.neurons
    lower[:, at] = torch.maximum(lower[:, at], limits.lower[:, part])
    upper[:, at] = torch.minimum(upper[:, at], limits.upper[:, part])
    shape = interval.lower.shape
    return interval.between(lower.reshape(shape), upper.reshape(shape))


def _is_narrower(inner: Interval, outer: Interval) -> bool:
    """Of one within the other; what is no number is not."""
    return bool(((inner.lower > outer.lower) | (inner.upper < outer.upper)).any())


def _ordered(interval: Interval) -> Interval:
    """Where rounding, or an empty domain, has let the limits cross, they are exchanged: then they
    hold as well as anything does of nothing.
    """
    lower = torch.minimum(interval.lower, interval.upper)
    return interval.between(lower, torch.maximum(interval.lower, interval.upper))
