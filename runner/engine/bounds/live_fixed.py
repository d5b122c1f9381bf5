"""What is fixed of a network over boxes with the same free inputs: bounded once over every box."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.form import Form, through
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.live_operands import Fixed, some
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import LEDGER
from runner.engine.bounds.tagging import Tagger

# Boxes of a core whose fixed values are found at once, and copies of their bounds that live.
SETTLED_AT_ONCE, LIVE_COPIES = 64, 4


@dataclass(frozen=True)
class Constant:
    """Of a linear node, where what varies of its inputs (`varies`, flat, of each) is zero: those
    flat results `taken`.
    """

    name: str
    varies: tuple[Tensor, ...]
    taken: Tensor

    @property
    def alike(self) -> bool:
        """Whether it is the same over all boxes: nothing of its inputs is fixed."""
        return all(bool(each.all()) for each in self.varies)


class FixedValues:
    """Those that are asked for, by their numbers: `first` of every node that makes values, `count`
    of all. `checkpoint` is called before each pass; it may raise.
    """

    def __init__(
        self,
        network: BoundNetwork,
        first: Mapping[str, int],
        count: int,
        tag: Tagger,
        checkpoint: Callable[[], None],
    ) -> None:
        self._network, self._first, self._count = network, first, count
        self._tag, self._checkpoint = tag, checkpoint
        self._wanted: dict[int, int] = {}
        self._alike: list[Constant] = []
        self._constants: list[Constant] = []

    def places(self, numbers: Tensor) -> Tensor:
        """Of values by their numbers: their places among those that are kept."""
        kept = [self._wanted.setdefault(n, len(self._wanted)) for n in numbers.tolist()]
        return torch.tensor(kept, dtype=torch.long, device=numbers.device)

    def keep(self, constant: Constant) -> None:
        (self._alike if constant.alike else self._constants).append(constant)

    def over(self, roots: Interval, budget: Budget) -> Fixed:
        """Over every root [C, *input]."""
        values = LIVE_COPIES * self._count * LEDGER.itemsize
        at_once = max(1, min(budget.bytes // values, budget.scaled(SETTLED_AT_ONCE)))
        numbers = torch.tensor(list(self._wanted), dtype=torch.long, device=roots.lower.device)
        alike = self._bases(self._alike, self._intervals(roots.part(0))) if self._alike else {}
        if not len(numbers) and not self._constants:
            nothing = roots.lower.new_zeros((len(roots.lower), 0))
            return Fixed(Form.of(Interval(nothing, nothing)), alike)
        parts = []
        for first in range(0, len(roots.lower), at_once):
            part = slice(first, first + at_once)
            found = self._intervals(Interval(roots.lower[part], roots.upper[part]))
            with self._tag.kind(Memory.BOUNDS):
                bases = self._bases(self._constants, found)
                parts.append(Fixed(self._values(found, numbers), bases))
        whole = Fixed.joined(parts)
        return Fixed(whole.values, {**whole.bases, **alike})

    def _values(self, found: Mapping[str, Interval], numbers: Tensor) -> Form:
        made = [found[name] for name in self._first]
        lower, upper = (
            torch.cat([end.flatten(1) for end in ends], 1).index_select(1, numbers - 1)
            for ends in ([one.lower for one in made], [one.upper for one in made])
        )
        return Form.of(Interval(lower, upper))

    def _bases(
        self, constants: Sequence[Constant], found: Mapping[str, Interval]
    ) -> dict[str, Form]:
        network, bases = self._network, {}
        for constant in constants:
            inputs = network.graph.node(constant.name).inputs
            before = [
                _without(found[name], varies)
                for name, varies in zip(inputs, constant.varies, strict=True)
            ]
            form = through(network.linear[constant.name], before)
            flat = Form((), form.columns.flatten(2), form.centre.flatten(1), form.error.flatten(1))
            bases[constant.name] = some(flat, constant.taken)
        return bases

    def _intervals(self, box: Interval) -> dict[str, Interval]:
        """Of all nodes."""
        self._checkpoint()
        network, found = self._network, {self._network.graph.input.name: box}
        with self._tag.kind(Memory.BOUNDS):
            for node in network.graph.nodes[1:]:
                inputs = (found[name] for name in node.inputs)
                found[node.name] = network.rule(node.name).interval(*inputs)
        return found


def _without(interval: Interval, varies: Tensor) -> Form:
    mask = varies.reshape(interval.lower.shape[1:])
    lower, upper = (end.masked_fill(mask, 0.0) for end in (interval.lower, interval.upper))
    return Form.of(Interval(lower, upper))
