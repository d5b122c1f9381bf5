"""Networks of linear forms: each neuron over the inputs and over all ReLUs before it.

What is open over a box is all that such a network has (runner.engine.bounds.folded makes them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from runner.engine.bounds.affine import AffineMap
from runner.engine.bounds.form_pass import FormLayer, FormPass, OpenNetwork
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import LEDGER, grown, outwards, smallest
from runner.engine.bounds.rules import AffineRule
from runner.engine.bounds.weights import BlockFunction, BlockShape
from runner.engine.network.graph import Dtype, Graph, Node, Op

# Of a block of a form's weights: a product in another precision copies it.
BLOCK_VALUES = 2 * 1024 * 1024


@dataclass(frozen=True)
class OpenForm:
    """Of n neurons over K values before them: `weight` [n, K] and `bias` [n] in the network's
    precision, and how far the neurons may lie from what these say: `error` [n] in float64.
    """

    weight: Tensor
    bias: Tensor
    error: Tensor

    @staticmethod
    def rounded(
        weight: Tensor, bias: Tensor, error: Tensor, sizes: Tensor, dtype: torch.dtype
    ) -> OpenForm:
        """All in float64, in the network's precision: `sizes` [K] are no less than the absolute
        values that go in, so that what rounding costs is known.
        """
        near, constant = weight.to(dtype), bias.to(dtype)
        # Products with subnormal numbers take long.
        near = hardshrink(near, smallest(dtype))
        off = (weight - near).abs_() @ sizes + (bias - constant).abs_()
        return OpenForm(near, constant, grown(error + off, weight.shape[1] + 2, 2))


@dataclass(frozen=True)
class OpenRelu:
    """Of a ReLU `name` the open neurons: those at flat places `at` [k] of the node `before` it in
    the network that forms were first made of.
    """

    name: str
    before: str
    at: Tensor


@dataclass(frozen=True)
class FormNetwork:
    """Valid over one box [1, *input]. `forms`: by node, of the open neurons before each of `relus`,
    in order, and of `output`. Nodes have the names of those that they are a part of. `corners`:
    whether rows of neurons have planes at corners (runner.engine.bounds.corner_planes).
    """

    box: Interval
    input: Node
    relus: tuple[OpenRelu, ...]
    output: str
    forms: Mapping[str, OpenForm]
    dtype: Dtype
    corners: bool = True

    @property
    def values(self) -> int:
        """Of all weights."""
        return sum(form.weight.numel() for form in self.forms.values())

    @cached_property
    def network(self) -> BoundNetwork:
        """For bounds over parts of the box."""
        graph = Graph(self._nodes(), self.output, self.dtype)
        made = OpenNetwork(graph, _Weights(self.forms), self._layers())
        for name, form in self.forms.items():
            rule = made.linear[name]
            if not isinstance(rule, AffineRule):
                raise TypeError(f"forms of {name} are no Linear")
            made.linear[name] = FormRule(rule.affine, form.error)
        return made

    @property
    def _flat(self) -> str:
        return self.input.name if len(self.input.shape) == 1 else "all of input"

    def _layers(self) -> FormPass:
        layers = [
            FormLayer(relu.name, relu.before, form.weight, form.bias, form.error, _stack(relu))
            for relu in self.relus
            for form in (self.forms[relu.before],)
        ]
        return FormPass(self.input.size, self._flat, layers, self.corners)

    def _nodes(self) -> tuple[Node, ...]:
        """All flat but the input."""
        nodes, flat = [self.input], self._flat
        if flat != self.input.name:
            nodes.append(Node(flat, Op.RESHAPE, (self.input.name,), (self.input.size,)))
        stack, columns = flat, self.input.size
        for relu in self.relus:
            count = len(relu.at)
            nodes.append(_linear(relu.before, stack, count))
            nodes.append(Node(relu.name, Op.RELU, (relu.before,), (count,)))
            columns += count
            both, stack = (stack, relu.name), _stack(relu)
            nodes.append(Node(stack, Op.CONCAT, both, (columns,), {"axis": 0}))
        nodes.append(_linear(self.output, stack, len(self.forms[self.output].bias)))
        return tuple(nodes)


def _stack(relu: OpenRelu) -> str:
    return f"all up to {relu.name}"


def _linear(name: str, before: str, size: int) -> Node:
    return Node(name, Op.LINEAR, (before,), (size,), {}, {"weight": name, "bias": name})


class _Weights:
    """Forms by node, in blocks that a product in float64 has copies of."""

    def __init__(self, forms: Mapping[str, OpenForm]) -> None:
        self._forms = forms

    def products(
        self, name: str, function: BlockFunction, shape: BlockShape, dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        weight = self._forms[name].weight
        rows, columns = weight.shape
        wide = max(1, BLOCK_VALUES // max(1, rows))
        for start in range(0, columns, wide):
            stop = min(start + wide, columns)
            yield start, stop, function(start, stop, weight[:, start:stop])

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._forms[name].weight.shape)

    def fetched(self, name: str) -> _Weights:
        return self

    def tensor(self, name: str) -> Tensor:
        return self._forms[name].bias


class FormRule(AffineRule):
    """A Linear whose values may lie as far from it as `error` [n] says, in float64."""

    whole = False

    def __init__(self, affine: AffineMap, error: Tensor) -> None:
        super().__init__(affine)
        self._error = error

    def _off(self, dtype: torch.dtype) -> Tensor:
        """Rounded up: [n]."""
        return grown(self._error, 1, 1) if dtype is LEDGER else grown(self._error.to(dtype), 1, 1)

    def interval(self, *inputs: Interval) -> Interval:
        found = super().interval(*inputs)
        off = self._off(found.lower.dtype)
        lower, upper = outwards(found.lower - off, found.upper + off)
        return Interval(lower, upper, found.sums, found.floor, off.expand_as(found.lower))

    def spread(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], columns: int) -> Tensor:
        found = super().spread(errors, sizes, columns)
        return grown(found + self._off(found.dtype), 1, 1)

    def start(self, neurons: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, constants, _ = super().start(neurons, dtype)
        return rows, constants, self._error[neurons]
