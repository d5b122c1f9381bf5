"""What of a network varies over boxes that have the same few free inputs, and forms of that alone.

Most of a network often sees nothing but inputs that are fixed in each box. Neurons that are fixed
are bounded once over every box, and not over its parts; forms have the neurons that vary, flat, as
many as there are. Nodes that move values cost nothing: whoever takes a value takes it where it was
made. All is in float64, whose rounding is nothing beside what small boxes leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.affine import ConvMap
from runner.engine.bounds.bands import relaxed
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.form import Form, through
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.patches import convolution
from runner.engine.bounds.relaxed import BentRule
from runner.engine.bounds.rounding import LEDGER
from runner.engine.bounds.rules import AffineRule, LinearRule, RelaxedRule
from runner.engine.bounds.tagging import Tagger
from runner.engine.network.graph import OF_EACH_VALUE, Node, Op

# Values that vary by no more than this, beside their size and 1, are fixed.
FIXED = 1e-9
# Boxes of a core whose fixed values are found at once, and copies of their bounds that live.
SETTLED_AT_ONCE, LIVE_COPIES = 64, 4
# They move values as they are.
MOVING = frozenset({Op.RESHAPE, Op.SELECT, Op.CONCAT})


def varying(interval: Interval) -> Tensor:
    """Which values of [B, *shape] are not fixed; what is no number is not."""
    width = interval.upper - interval.lower
    return ~(width <= FIXED * (1 + interval.size))


def numbered(
    network: BoundNetwork, device: torch.device
) -> tuple[dict[str, int], dict[str, Tensor], int]:
    """Of nodes that make values the number of the first, from 1 on; of every node, which values it
    has, by these numbers, or 0 where it has a zero; and how many numbers there are.
    """
    first: dict[str, int] = {}
    places: dict[str, Tensor] = {}
    count = 1
    for node in network.graph.nodes:
        if node.op in MOVING:
            before = (places[name].unsqueeze(0).to(LEDGER) for name in node.inputs)
            moved = network.linear[node.name].forward(*before)
            places[node.name] = moved[0].round().long()
        else:
            first[node.name] = count
            numbers = torch.arange(node.size, device=device) + count
            places[node.name] = numbers.reshape(node.shape)
            count += node.size
    return first, places, count


@dataclass(frozen=True)
class _Source:
    """Where an operand's values that vary come from: those `taken` of the ones that vary of a node,
    to places `at` of the operand.
    """

    name: str
    taken: Tensor
    at: Tensor


@dataclass(frozen=True)
class _Operand:
    """`shape`: without the batch; `sources` of what varies; the fixed values at the other places
    `at`, which are these numbers `fixed` of those that are kept.
    """

    shape: tuple[int, ...]
    sources: tuple[_Source, ...]
    at: Tensor
    fixed: Tensor


@dataclass(frozen=True)
class _Step:
    """One node on operands, of whose flat results those `taken` vary; all where that is None."""

    node: Node
    rule: LinearRule | RelaxedRule
    operands: tuple[_Operand, ...]
    taken: Tensor | None


class LivePart:
    """Over parts of `roots`, boxes [C, *input] in float64 whose inputs vary where those of one of
    them do. `checkpoint` is called before each pass; it may raise. All ranks do the same.
    """

    def __init__(
        self,
        network: BoundNetwork,
        roots: Interval,
        tag: Tagger,
        checkpoint: Callable[[], None],
        budget: Budget,
    ) -> None:
        self._network, self._tag, self._checkpoint = network, tag, checkpoint
        graph, wide = network.graph, varying(roots).any(0)
        self.inputs = wide.flatten().nonzero()[:, 0]
        with torch.no_grad():
            self._first, self._places, self._count = numbered(network, wide.device)
            self._live = self._reached(wide.flatten())
            self._wanted: dict[int, int] = {}  # of fixed values: their place among those kept
            self._steps = [step for node in graph.nodes[1:] for step in self._steps_of(node)]
            self._output = self._operand(self._places[graph.output].flatten(), (network.outputs,))
            self._kept = self._settled(roots, self._at_once(budget))

    @property
    def neurons(self) -> int:
        """How many values a pass computes for a box, and for each of its free inputs."""
        sizes = (sum(prod(one.shape) for one in step.operands) for step in self._steps)
        return sum(sizes) + sum(len(self._live[step.node.name]) for step in self._steps)

    @property
    def kept(self) -> int:
        """How many values are fixed that the others are computed from."""
        return len(self._wanted)

    @torch.no_grad()
    def output(self, box: Interval, root: Tensor) -> Form:
        """Of the flat outputs over boxes [B, *input], parts of roots [B]: a column of each of
        `inputs`.
        """
        self._checkpoint()
        with self._tag.kind(Memory.A):
            kept = Interval(self._kept.lower[root], self._kept.upper[root])
            fixed = Form.of(kept)
            forms = {self._network.graph.input.name: self._start(box)}
            for step in self._steps:
                before = [_assembled(one, forms, fixed) for one in step.operands]
                found = _flat(_passed(step, before))
                forms[step.node.name] = found if step.taken is None else _some(found, step.taken)
            return _assembled(self._output, forms, fixed)

    def _start(self, box: Interval) -> Form:
        centre, radius = (part.flatten(1)[:, self.inputs] for part in box.ball)
        symbols = tuple(range(len(self.inputs)))
        columns = torch.diag_embed(radius).movedim(1, 0)
        return Form(symbols, columns, centre, torch.zeros_like(centre)).settled()

    def _intervals(self, box: Interval) -> dict[str, Interval]:
        """Of all nodes."""
        self._checkpoint()
        network, found = self._network, {self._network.graph.input.name: box}
        with self._tag.kind(Memory.BOUNDS):
            for node in network.graph.nodes[1:]:
                inputs = (found[name] for name in node.inputs)
                found[node.name] = network.rule(node.name).interval(*inputs)
        return found

    def _reached(self, wide: Tensor) -> dict[str, Tensor]:
        """Of every node, its flat values that depend on an input that varies."""
        graph, found = self._network.graph, {self._network.graph.input.name: self.inputs}
        made = torch.zeros(self._count, dtype=torch.bool, device=wide.device)
        made[1 : 1 + len(wide)] = wide
        for node in graph.nodes[1:]:
            if node.op in MOVING:
                reached = made[self._places[node.name]].flatten()
            else:
                before = [made[self._places[name]] for name in node.inputs]
                reached = self._reached_from(node, before).flatten()
                first = self._first[node.name]
                made[first : first + len(reached)] = reached
            found[node.name] = reached.nonzero()[:, 0]
        return found

    def _reached_from(self, node: Node, before: list[Tensor]) -> Tensor:
        if node.op in OF_EACH_VALUE:
            return before[0]
        if node.op is Op.PRODUCT:
            return before[0].reshape(2, *node.shape).any(0)
        if self._pixels(node) is not None:
            return before[0].any(0).expand(node.shape)
        return torch.stack([each.any() for each in before]).any().expand(node.shape)

    def _pixels(self, node: Node) -> ConvMap | None:
        """Of a convolution that does the same to each pixel."""
        conv = convolution(self._network.linear.get(node.name))
        return conv if conv is not None and conv.of_pixels else None

    def _steps_of(self, node: Node) -> list[_Step]:
        """None where nothing varies, or values are moved alone."""
        live, network = self._live[node.name], self._network
        if node.op in MOVING or not len(live):
            return []
        before = self._places[node.inputs[0]]
        if node.op in OF_EACH_VALUE:
            alone = replace(node, shape=(len(live),))
            rule = network.relaxed[node.name] if node.op is Op.RELU else BentRule(alone)
            operand = self._operand(before.flatten()[live], alone.shape)
            return [_Step(alone, rule, (operand,), None)]
        if node.op is Op.PRODUCT:
            alone = replace(node, shape=(len(live),))
            both = before.reshape(2, -1)[:, live]
            operand = self._operand(both.flatten(), (2, len(live)))
            return [_Step(alone, BentRule(alone), (operand,), None)]
        conv = self._pixels(node)
        if conv is not None:
            seen = torch.zeros(prod(node.shape[1:]), dtype=torch.bool, device=live.device)
            seen[live % len(seen)] = True
            pixels = seen.nonzero()[:, 0]
            size = (len(pixels), 1)
            some = before.reshape(len(before), -1)[:, pixels]
            place = seen.cumsum(0) - 1
            taken = live // len(seen) * len(pixels) + place[live % len(seen)]
            operand = self._operand(some.flatten(), (len(before), *size))
            return [_Step(node, AffineRule(conv.unpadded(size)), (operand,), taken)]
        operands = tuple(
            self._operand(self._places[name].flatten(), self._places[name].shape)
            for name in node.inputs
        )
        return [_Step(node, network.rule(node.name), operands, live)]

    def _operand(self, numbers: Tensor, shape: tuple[int, ...]) -> _Operand:
        """Of values by their numbers."""
        known = torch.zeros_like(numbers, dtype=torch.bool)
        sources = []
        ends = [*list(self._first.values())[1:], self._count]
        for (name, first), end in zip(self._first.items(), ends, strict=True):
            live = self._live[name]
            inside = (numbers >= first) & (numbers < end)
            if not len(live) or not bool(inside.any()):
                continue
            order = torch.full((end - first,), -1, device=live.device)
            order[live] = torch.arange(len(live), device=live.device)
            taken = torch.where(inside, order[(numbers - first) * inside], -1)
            at = (taken >= 0).nonzero()[:, 0]
            known[at] = True
            if len(at):
                sources.append(_Source(name, taken[at], at))
        at = (~known & (numbers > 0)).nonzero()[:, 0]
        kept = [self._wanted.setdefault(n, len(self._wanted)) for n in numbers[at].tolist()]
        fixed = torch.tensor(kept, dtype=torch.long, device=at.device)
        return _Operand(tuple(shape), tuple(sources), at, fixed)

    def _at_once(self, budget: Budget) -> int:
        values = LIVE_COPIES * self._count * LEDGER.itemsize
        return max(1, min(budget.bytes // values, budget.scaled(SETTLED_AT_ONCE)))

    def _settled(self, roots: Interval, at_once: int) -> Interval:
        """The fixed values over every root: [C, kept]."""
        numbers = torch.tensor(list(self._wanted), dtype=torch.long, device=self.inputs.device)
        parts = [Interval(*roots.lower.new_zeros((2, 0, len(numbers))))]
        for first in range(0, len(roots.lower) if len(numbers) else 0, at_once):
            some = slice(first, first + at_once)
            found = self._intervals(Interval(roots.lower[some], roots.upper[some]))
            made = [found[name] for name in self._first]
            with self._tag.kind(Memory.BOUNDS):
                lower = torch.cat([one.lower.flatten(1) for one in made], 1)[:, numbers - 1]
                upper = torch.cat([one.upper.flatten(1) for one in made], 1)[:, numbers - 1]
                parts.append(Interval(lower, upper))
        if not len(numbers):
            return Interval(*roots.lower.new_zeros((2, len(roots.lower), 0)))
        return Interval.joined(parts)


def _passed(step: _Step, before: list[Form]) -> Form:
    rule, node = step.rule, step.node
    if node.op is Op.RELU or isinstance(rule, BentRule):
        ends = before[0].interval
        after = rule.interval(ends)
        return relaxed(node, rule, before[0], ends, after)  # type: ignore[arg-type]
    return through(rule, before)  # type: ignore[arg-type]


def _flat(form: Form) -> Form:
    return Form(
        form.symbols, form.columns.flatten(2), form.centre.flatten(1), form.error.flatten(1)
    )


def _some(form: Form, at: Tensor) -> Form:
    """Flat values at some places."""
    return Form(
        form.symbols,
        form.columns.index_select(2, at),
        form.centre.index_select(1, at),
        form.error.index_select(1, at),
    )


def _assembled(operand: _Operand, forms: Mapping[str, Form], fixed: Form) -> Form:
    """What varies, and what is fixed, in one place; fixed values are centre and error alone."""
    parts = [(source.at, _some(forms[source.name], source.taken)) for source in operand.sources]
    if len(parts) == 1 and len(parts[0][0]) == prod(operand.shape):
        return _shaped(parts[0][1], operand.shape)
    batch = len(fixed.centre)
    symbols = tuple(sorted({symbol for _, part in parts for symbol in part.symbols}))
    centre = fixed.centre.new_zeros((batch, prod(operand.shape)))
    error, columns = torch.zeros_like(centre), centre.new_zeros((len(symbols), *centre.shape))
    if len(operand.at):
        centre[:, operand.at] = fixed.centre.index_select(1, operand.fixed)
        error[:, operand.at] = fixed.error.index_select(1, operand.fixed)
    for at, part in parts:
        centre[:, at], error[:, at] = part.centre, part.error
        for place, symbol in enumerate(part.symbols):
            columns[symbols.index(symbol)][:, at] = part.columns[place]
    return _shaped(Form(symbols, columns, centre, error), operand.shape)


def _shaped(form: Form, shape: tuple[int, ...]) -> Form:
    return Form(
        form.symbols,
        form.columns.reshape(*form.columns.shape[:2], *shape),
        form.centre.reshape(-1, *shape),
        form.error.reshape(-1, *shape),
    )
