"""Strict and tied properties of small networks, decided in rational arithmetic.

Where the maximum of an output is exactly what a strict bound excludes, no margin is left for any
rounding. Interval bounds and one backward pass in fractions prove such a bound if they are exact
there: ties of equal neurons, constant outputs, boxes that end at a threshold. Neurons that are
computed alike are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runner.engine.network.graph import Graph, Node, Op
from runner.problem.property.model import Case

# Multiplications of a whole pass: about a second in fractions.
MOST_WORK = 400_000
_KNOWN = frozenset({Op.LINEAR, Op.RELU, Op.ADD, Op.SUB, Op.AFFINE, Op.RESHAPE, Op.CONCAT})

# Arrays of Fraction.
Exact = NDArray[np.object_]


class Source(Protocol):
    """Where the tensors of a network come from."""

    def shape(self, name: str) -> tuple[int, ...]: ...

    def tensor(self, name: str) -> Any: ...


@dataclass(frozen=True)
class _Bounds:
    lower: Exact
    upper: Exact


def excluded_exactly(graph: Graph, source: Source, case: Case, disjunct: int) -> bool:
    """Whether a row of the disjunct cannot be met anywhere in the box, strictness included.

    False where it can be met, where this cannot tell, and where it would take long.
    """
    region = case.unsafe[disjunct]
    if not _is_small(graph, source, len(region.rhs)):
        return False
    network = _Network(graph, source)
    bounds = network.bounds(case)
    for row in range(len(region.rhs)):
        if not _is_short(region.matrix[row]):
            continue
        least = network.least(_exact(region.matrix[row]), bounds)
        limit = region.bounds[row] if region.bounds else Fraction(float(region.rhs[row]))
        if least > limit or (least == limit and bool(region.strict[row])):
            return True
    return False


def _is_short(row: NDArray[np.float64]) -> bool:
    """Whether coefficients are multiples of a small power of two: others the property rounded."""
    scaled = row * 2.0**20
    return bool(np.all(scaled == np.round(scaled)) and np.all(np.abs(row) < 2.0**20))


def _is_small(graph: Graph, source: Source, rows: int) -> bool:
    if any(node.op not in _KNOWN for node in graph.nodes[1:]):
        return False
    if any("scale_error" in n.parameters or "shift_error" in n.parameters for n in graph.nodes):
        return False
    weights = [n.parameters["weight"] for n in graph.nodes if n.op is Op.LINEAR]
    size = sum(int(np.prod(source.shape(name))) for name in weights)
    return (size + sum(node.size for node in graph.nodes)) * (rows + 2) <= MOST_WORK


def _exact(values: Any) -> Exact:
    """Each float as the fraction that it is."""
    floats = np.asarray(values, dtype=np.float64)
    fractions = [Fraction(value) for value in floats.reshape(-1).tolist()]
    return np.array(fractions, dtype=object).reshape(floats.shape)


def _positive(values: Exact) -> Exact:
    positive: Exact = values * (values > 0)
    return positive


def _merged(rows: Exact, same: NDArray[np.int_]) -> Exact:
    """Coefficients [..., n] of neurons that are equal, all on the first of them."""
    merged = np.full(rows.shape, Fraction(0), dtype=object)
    np.add.at(merged.T, same, rows.T)
    return merged


class _Network:
    """The bound graph in fractions; values of nodes are flat."""

    def __init__(self, graph: Graph, source: Source) -> None:
        self._graph = graph
        self._tensors = {
            name: _exact(source.tensor(name).numpy())
            for node in graph.nodes
            for name in node.parameters.values()
        }
        self._nodes = {node.name: node for node in graph.nodes}
        self._same = {graph.input.name: np.arange(graph.input.size)}
        for node in graph.nodes[1:]:
            self._same[node.name] = self._equals(node)

    def _equals(self, node: Node) -> NDArray[np.int_]:
        """Of each neuron, the first of its node that is computed alike and so always equals it."""
        before = [self._same[name] for name in node.inputs]
        if node.op is Op.LINEAR:
            weight = _merged(self._parameter(node, "weight"), before[0])
            columns = [*weight.T, self._parameter(node, "bias")]
        elif node.op is Op.CONCAT:
            # Inputs of one node only are compared.
            shifts = np.cumsum([0, *(len(part) for part in before[:-1])])
            parts = [part + shift for part, shift in zip(before, shifts, strict=True)]
            columns = [self._joined(node, parts)]
        elif node.op is Op.AFFINE:
            columns = [before[0], self._spread(node, "scale"), self._spread(node, "shift")]
        else:
            columns = list(before)
        first: dict[tuple[Any, ...], int] = {}
        keys = zip(*(column.tolist() for column in columns), strict=True)
        return np.array([first.setdefault(key, index) for index, key in enumerate(keys)])

    def _parameter(self, node: Node, role: str) -> Exact:
        return self._tensors[node.parameters[role]]

    def _spread(self, node: Node, role: str) -> Exact:
        """A parameter of an AFFINE node, one value a neuron."""
        return np.broadcast_to(self._parameter(node, role), node.shape).reshape(-1)

    def bounds(self, case: Case) -> Mapping[str, _Bounds]:
        """Interval bounds of every node."""
        limits = [case.limits_of(index) for index in range(len(case.lower))]
        found = {
            self._graph.input.name: _Bounds(
                np.array([interval.lower.exact for interval in limits], dtype=object),
                np.array([interval.upper.exact for interval in limits], dtype=object),
            )
        }
        for node in self._graph.nodes[1:]:
            found[node.name] = self._interval(node, [found[name] for name in node.inputs])
        return found

    def _interval(self, node: Node, inputs: list[_Bounds]) -> _Bounds:
        x = inputs[0]
        match node.op:
            case Op.LINEAR:
                weight, bias = (self._parameter(node, role) for role in ("weight", "bias"))
                positive, negative = _positive(weight), -_positive(-weight)
                return _Bounds(
                    positive @ x.lower + negative @ x.upper + bias,
                    positive @ x.upper + negative @ x.lower + bias,
                )
            case Op.RELU:
                return _Bounds(_positive(x.lower), _positive(x.upper))
            case Op.ADD:
                return _Bounds(x.lower + inputs[1].lower, x.upper + inputs[1].upper)
            case Op.SUB:
                return _Bounds(x.lower - inputs[1].upper, x.upper - inputs[1].lower)
            case Op.AFFINE:
                scale, shift = self._spread(node, "scale"), self._spread(node, "shift")
                ends = scale * x.lower + shift, scale * x.upper + shift
                return _Bounds(np.minimum(*ends), np.maximum(*ends))
            case Op.CONCAT:
                return _Bounds(
                    self._joined(node, [i.lower for i in inputs]),
                    self._joined(node, [i.upper for i in inputs]),
                )
        return x  # RESHAPE

    def _joined(self, node: Node, parts: list[Exact]) -> Exact:
        axis = int(node.attributes["axis"])  # type: ignore[arg-type]
        shaped = [
            part.reshape(self._nodes[name].shape)
            for name, part in zip(node.inputs, parts, strict=True)
        ]
        return np.concatenate(shaped, axis).reshape(-1)

    def least(self, row: Exact, bounds: Mapping[str, _Bounds]) -> Fraction:
        """A lower bound of row @ outputs, exact but for what ReLUs are relaxed by."""
        pending: dict[str, Exact] = {self._graph.output: row}
        constant = Fraction(0)
        for node in reversed(self._graph.nodes[1:]):
            if node.name not in pending:
                continue
            rows = _merged(pending.pop(node.name), self._same[node.name])
            parts, added = self._backward(node, rows, bounds)
            constant += added
            for name, part in zip(node.inputs, parts, strict=True):
                pending[name] = pending[name] + part if name in pending else part
        x, box = pending[self._graph.input.name], bounds[self._graph.input.name]
        return constant + sum((np.where(x > 0, box.lower, box.upper) * x).tolist(), Fraction(0))

    def _backward(
        self, node: Node, rows: Exact, bounds: Mapping[str, _Bounds]
    ) -> tuple[list[Exact], Fraction]:
        nothing = Fraction(0)
        match node.op:
            case Op.LINEAR:
                weight, bias = (self._parameter(node, role) for role in ("weight", "bias"))
                return [rows @ weight], rows @ bias
            case Op.RELU:
                return _relu(rows, bounds[node.inputs[0]])
            case Op.ADD:
                return [rows, rows], nothing
            case Op.SUB:
                return [rows, -rows], nothing
            case Op.AFFINE:
                return [rows * self._spread(node, "scale")], rows @ self._spread(node, "shift")
            case Op.CONCAT:
                axis = int(node.attributes["axis"])  # type: ignore[arg-type]
                lengths = [self._nodes[name].shape[axis] for name in node.inputs]
                cuts = np.cumsum(lengths)[:-1]
                parts = np.split(rows.reshape(node.shape), cuts, axis)
                return [part.reshape(-1) for part in parts], nothing
        return [rows], nothing  # RESHAPE


def _relu(rows: Exact, before: _Bounds) -> tuple[list[Exact], Fraction]:
    """CROWN's lines over exact bounds: any lower slope in [0, 1] holds, and the secant above."""
    result, constant = [], Fraction(0)
    for row, lower, upper in zip(rows, before.lower, before.upper, strict=True):
        if lower >= 0 or upper <= 0:
            result.append(row if lower >= 0 else Fraction(0))
        elif row > 0:
            result.append(row if upper > -lower else Fraction(0))
        else:
            slope = upper / (upper - lower)
            result.append(row * slope)
            constant -= row * slope * lower
    return [np.array(result, dtype=object)], constant
