"""What of a network varies over boxes that have the same few free inputs, and forms of that alone.

Most of a network often sees nothing but inputs that are fixed in each box. Neurons that are fixed
are bounded once over every box, and not over its parts; forms have the neurons that vary, flat, as
many as there are. Nodes that move values cost nothing: whoever takes a value takes it where it was
made. All is in float64, whose rounding is nothing beside what small boxes leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.affine import ConvMap
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.form import Form
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.live_fixed import Constant, FixedValues
from runner.engine.bounds.live_operands import Operand, Origin
from runner.engine.bounds.live_rows import PendingRows, RowBill
from runner.engine.bounds.live_steps import (
    Back,
    BentStep,
    LiveStep,
    Matrices,
    MatrixStep,
    ScaledStep,
    WholeStep,
)
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.patches import convolution
from runner.engine.bounds.relaxed import BentRule
from runner.engine.bounds.rounding import LEDGER, grown
from runner.engine.bounds.rule_kinds import LinearRule
from runner.engine.bounds.rules import AffineRule
from runner.engine.bounds.tagging import Tagger
from runner.engine.network.graph import OF_EACH_VALUE, Node, Op

# Entries of what a linear node's matrix is read with, up to which it is kept as one.
MOST_ENTRIES = 1 << 20
# They move values as they are.
MOVING = frozenset({Op.RESHAPE, Op.SELECT, Op.CONCAT})
# All their parameters are the file's own.
MATRICES = frozenset({Op.LINEAR, Op.CONV, Op.ADD, Op.SUB})


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
class LivePass:
    """Forms of all that varies, over some boxes, and `ways` back through each step."""

    start: str
    operand: Operand
    output: Form
    forms: Mapping[str, Form]
    fixed: Form
    ways: tuple[tuple[LiveStep, Back], ...]

    @property
    def radius(self) -> Tensor:
        """Of the free inputs [B, K]."""
        first = self.forms[self.start]
        return first.whole_reach + first.error

    @property
    def back(self) -> bool:
        """Whether rows can go back through all of it."""
        return all(step.back for step, _ in self.ways)

    def least(self, rows: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows [R, outputs], each over its box `of`, by the signs of their coefficients at each
        step: lower bounds [R], and the coefficients [R, free inputs] of a plane below each row that
        is nowhere lower.
        """
        first = self.forms[self.start]
        bill = RowBill(of, len(first.centre))
        pending = PendingRows(self.forms, self.fixed, bill)
        pending.give(self.operand, rows)
        for step, back in reversed(self.ways):
            mine = pending.take(step.name)
            if mine is not None:
                for operand, part in zip(step.operands, back(mine, bill), strict=True):
                    pending.give(operand, part)
        mine = pending.take(self.start)
        if mine is None:
            mine = rows.new_zeros((len(rows), first.centre.shape[1]))
        else:
            reach = grown(self.radius, first.count + 1, 1)
            bill.fixed(mine, bill.at(first.centre), bill.at(reach))
        return bill.lower(), mine


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
        matrices: Matrices,
    ) -> None:
        """`matrices`: of other parts of the network as well."""
        self._network, self._tag, self._checkpoint = network, tag, checkpoint
        self._matrices = matrices
        graph, wide = network.graph, roots.varying.any(0)
        self.inputs = wide.flatten().nonzero()[:, 0]
        with torch.no_grad():
            self._first, self._places, self._count = numbered(network, wide.device)
            self._made = torch.zeros(self._count, dtype=torch.bool, device=wide.device)
            self._live = self._reached(wide.flatten())
            values = FixedValues(network, self._first, self._count, tag, checkpoint)
            self._fixed = values
            self._steps = [step for node in graph.nodes[1:] for step in self._steps_of(node)]
            self._output = self._operand(self._places[graph.output].flatten(), (network.outputs,))
            self._kept = values.over(roots, budget)

    @property
    def neurons(self) -> int:
        """How many values a pass computes for a box, and for each of its free inputs."""
        made = sum(len(self._live[step.name]) for step in self._steps)
        operands = (one for step in self._steps for one in step.operands)
        return made + sum(one.size for one in operands if one.alone is None)

    @property
    def kept(self) -> int:
        """How many values are fixed that the others are computed from."""
        return self._kept.values.centre.shape[1]

    @torch.no_grad()
    def pass_over(self, box: Interval, root: Tensor) -> LivePass:
        """Over boxes [B, *input], parts of roots [B]: a column of each of `inputs`."""
        self._checkpoint()
        with self._tag.kind(Memory.A):
            fixed, start = self._kept.of(root), self._network.graph.input.name
            forms, ways = {start: self._start(box)}, []
            for step in self._steps:
                before = [one.assembled(forms, fixed.values) for one in step.operands]
                forms[step.name], back = step.forward(before, fixed)
                ways.append((step, back))
            output = self._output.assembled(forms, fixed.values)
        return LivePass(start, self._output, output, forms, fixed.values, tuple(ways))

    def _start(self, box: Interval) -> Form:
        centre, radius = (part.flatten(1)[:, self.inputs] for part in box.ball)
        symbols = tuple(range(len(self.inputs)))
        columns = torch.diag_embed(radius).movedim(1, 0)
        return Form(symbols, columns, centre, torch.zeros_like(centre)).settled()

    def _reached(self, wide: Tensor) -> dict[str, Tensor]:
        """Of every node, its flat values that depend on an input that varies."""
        graph, found = self._network.graph, {self._network.graph.input.name: self.inputs}
        made = self._made
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

    def _steps_of(self, node: Node) -> list[LiveStep]:
        """None where nothing varies, or values are moved alone."""
        live, network = self._live[node.name], self._network
        if node.op in MOVING or not len(live):
            return []
        before = self._places[node.inputs[0]]
        if node.op in OF_EACH_VALUE:
            alone = replace(node, shape=(len(live),))
            rule = network.relaxed[node.name] if node.op is Op.RELU else BentRule(alone)
            return [BentStep(alone, rule, self._operand(before.flatten()[live], alone.shape))]
        if node.op is Op.PRODUCT:
            return [self._product(node, before.reshape(2, -1)[:, live])]
        step = self._matrix(node)
        if step is not None:
            return [step]
        operands = tuple(
            self._operand(self._places[name].flatten(), self._places[name].shape)
            for name in node.inputs
        )
        return [WholeStep(node, network.rule(node.name), operands, live)]

    def _product(self, node: Node, numbers: Tensor) -> LiveStep:
        """Of values by their numbers [2, n]."""
        count = numbers.shape[1]
        for one, other in (numbers, numbers.flip(0)):
            if not bool(self._made[other].any()) and bool((other > 0).all()):
                return ScaledStep(
                    node.name, self._operand(one, (count,)), self._fixed.places(other)
                )
        alone = replace(node, shape=(count,))
        return BentStep(alone, BentRule(alone), self._operand(numbers.flatten(), (2, count)))

    def _matrix(self, node: Node) -> MatrixStep | None:
        """Of a linear node without parameters that are not the file's own, while it is small."""
        if node.op not in MATRICES:
            return None
        conv = self._pixels(node)
        return self._matrix_of_pixels(node, conv) if conv is not None else self._whole_matrix(node)

    def _whole_matrix(self, node: Node) -> MatrixStep | None:
        """Of all its inputs, side by side."""
        live, rule = self._live[node.name], self._network.linear[node.name]
        numbers = torch.cat([self._places[name].flatten() for name in node.inputs])
        varies = self._made[numbers]
        free = varies.nonzero()[:, 0]
        shapes = [tuple(self._places[name].shape) for name in node.inputs]
        if len(free) * max(len(numbers), node.size) > MOST_ENTRIES:
            return None
        key = (node.name, *free.tolist(), -1, *live.tolist())
        matrix = self._matrices.of(
            key,
            len(free) * len(live),
            lambda: _columns(rule, shapes, free).index_select(1, live),
        )
        if matrix is None:
            return None
        masks = varies.split([prod(shape) for shape in shapes])
        self._fixed.keep(Constant(node.name, tuple(masks), live))
        operand = self._operand(numbers[free], (1, len(free)))
        return MatrixStep(node.name, operand, matrix, None)

    def _matrix_of_pixels(self, node: Node, conv: ConvMap) -> MatrixStep | None:
        """Of the pixels in which anything varies, and of the channels that vary in any of them."""
        live, channels = self._live[node.name], conv.input_shape[0]
        places = self._places[node.inputs[0]].reshape(channels, -1)
        seen = torch.zeros(places.shape[1], dtype=torch.bool, device=live.device)
        seen[live % len(seen)] = True
        pixels, place = seen.nonzero()[:, 0], seen.cumsum(0) - 1
        free = self._made[places[:, pixels]].any(1).nonzero()[:, 0]
        one = AffineRule(conv.unpadded((1, 1)))
        matrix = self._matrices.of(
            (node.name, *free.tolist()),
            len(free) * node.shape[0],
            lambda: _columns(one, [(channels, 1, 1)], free),
        )
        if matrix is None:
            return None
        mask = torch.zeros_like(places, dtype=torch.bool)
        mask[free.unsqueeze(1), pixels] = True
        self._fixed.keep(Constant(node.name, (mask.flatten(),), live))
        operand = self._operand(places[free][:, pixels].T.flatten(), (len(pixels), len(free)))
        taken = place[live % len(seen)] * node.shape[0] + live // len(seen)
        return MatrixStep(node.name, operand, matrix, None if len(pixels) == 1 else taken)

    def _operand(self, numbers: Tensor, shape: tuple[int, ...]) -> Operand:
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
                sources.append(Origin(name, taken[at], at))
        at = (~known & (numbers > 0)).nonzero()[:, 0]
        return Operand(tuple(shape), tuple(sources), at, self._fixed.places(numbers[at]))


def _columns(rule: LinearRule, shapes: Sequence[tuple[int, ...]], free: Tensor) -> Tensor:
    """What each of some flat values of the inputs gives of each result: [free, outputs]."""
    sizes = [prod(shape) for shape in shapes]
    ones = torch.zeros((len(free), sum(sizes)), dtype=LEDGER, device=free.device)
    ones.scatter_(1, free.unsqueeze(1), 1.0)
    parts = ones.split(sizes, 1)
    return rule.directions(
        *(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))
    ).flatten(1)
