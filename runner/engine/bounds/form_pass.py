"""Charged rows back through a network of forms, in one array of their columns.

A row on some layer is one of the inputs and of all ReLUs before that, and each of these in turn,
the last first, adds to the columns before its own. So a pass is a product for each layer, added in
place; what is inactive over the box has no columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from runner.engine.bounds.backward import Frontier, Relaxations, WholeCharges, advance
from runner.engine.bounds.corner_planes import CornerForms, CornerRows, LayerForms
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.relu import ReluLines, ReluRelaxation
from runner.engine.bounds.rounding import charged, sums_in
from runner.engine.bounds.weights import Weights
from runner.engine.network.graph import Graph


@dataclass(frozen=True)
class FormLayer:
    """A ReLU `relu` of the node `before` it, whose forms are `weight` [n, columns] and `bias` [n],
    but for `error` [n] in float64; `stack`: the node that has all columns up to those of the ReLU.
    """

    relu: str
    before: str
    weight: Tensor
    bias: Tensor
    error: Tensor
    stack: str


@dataclass(frozen=True)
class _Alive:
    """Of a layer over a box, the k neurons that are not inactive: `at` [k], their forms over what
    is alive before them, `weight` [k, c] and `bias` [k], and where c and they stand, `kept`
    [c + k], of all columns.
    """

    at: Tensor
    weight: Tensor
    bias: Tensor
    kept: Tensor

    @property
    def before(self) -> int:
        return self.weight.shape[1]


@dataclass
class FormPass:
    """Of one network. `inputs`: how many; `first`: the node that has them, flat; `corners`: whether
    rows of neurons have planes, too. What is alive over the last box, and its corners, are kept for
    the rows that follow.
    """

    inputs: int
    first: str
    layers: Sequence[FormLayer]
    corners: bool
    _alive: dict[torch.dtype, list[_Alive]] = field(default_factory=dict)
    _corners: dict[torch.dtype, _BoxCorners] = field(default_factory=dict)

    @torch.no_grad()
    def back(
        self,
        network: BoundNetwork,
        start: Frontier,
        relaxations: Relaxations,
        intervals: Mapping[str, Interval],
        of_neurons: bool = False,
    ) -> Frontier:
        """Over one box; `of_neurons`: whether rows are neurons. Raises ValueError for rows that
        are on no stack of columns, or on several, and TypeError where a line is none of a ReLU.
        """
        ((stack, rows),) = start.pending.items()
        stacks = [self.first, *(layer.stack for layer in self.layers)]
        layers = self.layers[: stacks.index(stack)]
        lines = [_lines(relaxations, layer) for layer in layers]
        alive = self._of_box(layers, lines, rows.dtype)
        kept = alive[-1].kept if alive else torch.arange(self.inputs, device=rows.device)
        columns = rows.flatten(0, 1).index_select(1, kept)
        # What products are added to is rounded once for each that follows.
        further = 2 * len(layers) + 1 + network.roundings(rows.dtype)
        lowered = None
        if of_neurons and self.corners and layers:
            box = intervals[network.graph.input.name].outer(rows.dtype)
            corners = self._corners_of(box, layers, alive, relaxations, intervals)
            lowered = None if corners is None else CornerRows(corners, columns, further)
        error = charged(rows, _sizes(intervals[stack], rows.dtype), further)[:, 0]
        constant = start.constant[:, 0]
        for number in reversed(range(len(layers))):
            layer, some, of = layers[number], alive[number], lines[number]
            own = columns[:, some.before : len(some.kept)]
            if lowered is None:
                part, added = (x[:, 0] for x in of.at(some.at).backward(own.unsqueeze(1)))
                constant = constant + added
            else:
                part = lowered.take(number, own)
            interval = intervals[layer.before]
            if interval.sums is None or interval.floor is None:
                raise ValueError(f"no sums of {layer.before}")
            terms = len(some.at) + further
            sums = sums_in(interval.sums, interval.off, rows.dtype, terms)[:, some.at]
            error = error + charged(part.unsqueeze(1), sums, terms, interval.floor)[:, 0]
            constant = constant + part @ some.bias
            columns[:, : some.before] += part @ some.weight
        if lowered is not None:
            lowered.put(columns)
            error, constant = error + lowered.error, constant + lowered.constant
        shape = network.graph.input.shape
        at_input = columns[:, : self.inputs].reshape(len(columns), 1, *shape)
        error = error if start.error is None else error + start.error[:, 0]
        return Frontier(
            {network.graph.input.name: at_input}, constant.unsqueeze(1), (), error.unsqueeze(1)
        )

    def _of_box(
        self, layers: Sequence[FormLayer], lines: Sequence[ReluLines], dtype: torch.dtype
    ) -> list[_Alive]:
        """As far as it is the same as for the rows before, it is not made again."""
        found = self._alive.setdefault(dtype, [])
        for number, (layer, of) in enumerate(zip(layers, lines, strict=True)):
            at = of.alive
            if number < len(found) and torch.equal(found[number].at, at):
                continue
            del found[number:]
            kept = found[-1].kept if number else torch.arange(self.inputs, device=at.device)
            weight = layer.weight.index_select(0, at).index_select(1, kept).to(dtype)
            own = torch.cat((kept, layer.weight.shape[1] + at))
            found.append(_Alive(at, weight, layer.bias[at].to(dtype), own))
        return found[: len(layers)]

    def _corners_of(
        self,
        box: Interval,
        layers: Sequence[FormLayer],
        alive: Sequence[_Alive],
        relaxations: Relaxations,
        intervals: Mapping[str, Interval],
    ) -> CornerForms | None:
        """None where they are not foreseen."""
        lines: list[object] = [relaxations[layer.relu] for layer in layers]
        dtype = box.lower.dtype
        kept = self._corners.get(dtype)
        if kept is None or not kept.of(lines):
            kept = self._corners[dtype] = _BoxCorners(CornerForms.of(box), lines)
        forms = kept.forms
        if forms is None:
            return None
        for layer, of in list(zip(layers, alive, strict=True))[len(forms.planes) :]:
            if forms.ended:
                return None
            ends = (end.flatten(1)[:, of.at] for end in intervals[layer.before].outer(dtype).ends)
            found = _lines(relaxations, layer).at(of.at)
            forms.add(LayerForms(of.weight, of.bias, layer.error[of.at], found, Interval(*ends)))
        kept.lines[len(kept.lines) :] = lines[len(kept.lines) :]
        return None if forms.ended and len(forms.planes) < len(layers) else forms


@dataclass(frozen=True)
class _BoxCorners:
    """Of the last box, whose ReLUs have these `lines`; `forms`: None where it has no corners."""

    forms: CornerForms | None
    lines: list[object]

    def of(self, lines: Sequence[object]) -> bool:
        """Whether these are the same, as far as both go: those of another box are others."""
        return all(one is other for one, other in zip(self.lines, lines, strict=False))


class OpenNetwork(BoundNetwork):
    """Of forms, whose charged rows pass it so."""

    def __init__(self, graph: Graph, weights: Weights, forms: FormPass) -> None:
        super().__init__(graph, weights)
        self._forms = forms

    def back(
        self, start: Frontier, relaxations: Relaxations, intervals: Mapping[str, Interval]
    ) -> Frontier:
        """`advance`, over one box; with what it is charged."""
        charges = WholeCharges(self, intervals)
        of_output = self.graph.output in start.pending
        if of_output:
            # These are linear in the last stack of columns.
            start = advance(self, replace(start, todo=start.todo[:1]), {}, {}, charges)
        return self._forms.back(self, start, relaxations, intervals, not of_output)


def _lines(relaxations: Relaxations, layer: FormLayer) -> ReluLines:
    relaxation = relaxations[layer.relu]
    if not isinstance(relaxation, ReluRelaxation):
        raise TypeError(f"lines of {layer.relu} are none of a ReLU")
    return relaxation.whole


def _sizes(interval: Interval, dtype: torch.dtype) -> Tensor:
    return interval.size.flatten(1).to(dtype)
