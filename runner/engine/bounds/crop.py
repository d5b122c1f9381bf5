"""Rows of neurons that lie near each other in an image: they pass back what those see, no more.

In the layers just before its neuron, a row of the whole image is mostly zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.affine import ConvMap
from runner.engine.bounds.backward import (
    WholeCharges,
    advance,
    concretize,
    start_frontier,
)
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds
from runner.engine.bounds.rounding import LEDGER
from runner.engine.bounds.rule_kinds import LinearRule
from runner.engine.bounds.rules import AffineRule, AveragePoolRule
from runner.engine.bounds.tagging import Tagger
from runner.engine.network.graph import CURVES, Graph, Node, Op

# Each place of their output depends on the same place of their input.
_POINTWISE = frozenset(
    {Op.RELU, Op.SIGMOID, Op.TANH, Op.FUNCTION, Op.ADD, Op.SUB, *CURVES},
)
# Sides of the tiles that an image may be cut into.
TILES = (2, 4, 8, 16)
# Of the work of whole rows, what cropped ones may take to be worth it.
WORTH = 0.5
# What a tile costs beside its rows, for each node, in multiply-adds: relaxations of its own.
TILE_CALLS = 100_000


@dataclass(frozen=True)
class Span:
    """Rows top to bottom and columns left to right of an image; may reach beyond its border."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def within(self, image: Sequence[int]) -> Span:
        return Span(
            max(self.top, 0),
            min(self.bottom, image[0]),
            max(self.left, 0),
            min(self.right, image[1]),
        )

    def joined(self, other: Span) -> Span:
        return Span(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def of(self, x: Tensor) -> Tensor:
        return x[..., self.top : self.bottom, self.left : self.right]

    def toward(self, other: Span) -> tuple[int, int, int, int]:
        """What is to be added on each side (cut, where it is negative), as torch's `pad` wants."""
        return (
            self.left - other.left,
            other.right - self.right,
            self.top - other.top,
            other.bottom - self.bottom,
        )


class CroppedNetwork(BoundNetwork):
    """What the neurons of `start` in a part of its image see: nodes before it, cropped as far as
    they are images that only convolutions and pointwise operators lead to. For backward passes.
    """

    def __init__(self, whole: BoundNetwork, start: str, span: Span) -> None:
        self._whole = whole
        self.dtype, self.features = whole.dtype, whole.features
        self.unmultiplied = whole.unmultiplied
        self.start = start
        behind = whole.ancestors(start)
        shapes = {node.name: node.shape for node in whole.graph.nodes}
        self.spans = _spans(whole, behind, start, span)
        self._shapes = {
            name: shapes[name] if part is None else (*shapes[name][:-2], *part.size)
            for name, part in self.spans.items()
        }
        nodes = [whole.graph.input, *reversed(behind)]
        cropped = tuple(
            replace(node, shape=self._shapes[node.name])
            for node in nodes
            if node.name in self.spans
        )
        self.graph = Graph(cropped, start, whole.graph.dtype)
        self.relaxed = {n.name: whole.relaxed[n.name] for n in behind if n.name in whole.relaxed}
        self.linear = {
            node.name: self._cropped(node, whole.linear[node.name], shapes)
            for node in behind
            if node.name in whole.linear
        }

    def terms(self, name: str, dtype: torch.dtype) -> int:
        return self._whole.terms(name, dtype)

    def roundings(self, dtype: torch.dtype) -> int:
        return self._whole.roundings(dtype)

    def crop(self, name: str, interval: Interval) -> Interval:
        """Bounds of a node, of what is seen of it."""
        span = self.spans[name]
        if span is None:
            return interval
        shape = interval.lower.shape
        sums, off = (
            None if part is None else span.of(part.reshape(len(part), *shape[1:])).flatten(1)
            for part in (interval.sums, interval.off)
        )
        return Interval(span.of(interval.lower), span.of(interval.upper), sums, interval.floor, off)

    def cut(self, name: str, values: Tensor) -> Tensor:
        """What is seen of values [*shape] of a node."""
        span = self.spans[name]
        return values if span is None else span.of(values)

    def _cropped(
        self, node: Node, rule: LinearRule, shapes: dict[str, tuple[int, ...]]
    ) -> LinearRule:
        span = self.spans[node.name]
        if span is None:
            return rule
        seen = _seen(node, rule, span)
        pads = []
        for name in node.inputs:
            kept = self.spans[name] or Span(0, shapes[name][-2], 0, shapes[name][-1])
            pads.append(seen.toward(kept))
        inner: LinearRule = rule
        if isinstance(rule, AffineRule) and isinstance(rule.affine, ConvMap):
            inner = AffineRule(rule.affine.unpadded(span.size))
        elif node.op is Op.AVGPOOL:
            mine = replace(node, shape=self._shapes[node.name])
            inner = AveragePoolRule(mine, (node.shape[0], *seen.size))
        # Nothing but the backward pass walks a cropped network.
        kind = _CroppedStart if isinstance(inner, AffineRule) else _CroppedRule
        return cast(LinearRule, kind(rule, inner, pads))


class _CroppedRule:
    """The backward pass by `inner`, whose parts are placed into the spans of the inputs."""

    def __init__(
        self, whole: LinearRule, inner: LinearRule, pads: list[tuple[int, int, int, int]]
    ) -> None:
        self._whole, self._inner, self._pads = whole, inner, pads

    def terms(self, dtype: torch.dtype) -> int:
        return self._whole.terms(dtype)

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        parts, constant = self._inner.backward(rows)
        return [_padded(*each) for each in zip(parts, self._pads, strict=True)], constant


class _CroppedStart(_CroppedRule):
    """One that has a shorter way for one-hot rows."""

    def start(self, neurons: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, constant, off = cast(AffineRule, self._inner).start(neurons, dtype)
        return _padded(rows, self._pads[0]), constant, off


def _padded(rows: Tensor, pad: tuple[int, int, int, int]) -> Tensor:
    return F.pad(rows, pad) if any(pad) else rows


def _spans(
    whole: BoundNetwork, behind: Sequence[Node], start: str, span: Span
) -> dict[str, Span | None]:
    """What is seen of each node; None: all of it."""
    shapes = {node.name: node.shape for node in whole.graph.nodes}
    spans: dict[str, Span | None] = {start: span}
    for node in behind:
        rule = whole.linear.get(node.name)
        mine = spans[node.name]
        if not _local(node, rule):
            mine = spans[node.name] = None
        for name in node.inputs:
            seen = None
            if mine is not None:
                seen = _seen(node, rule, mine).within(shapes[name][-2:])
            if name in spans:
                before = spans[name]
                seen = None if seen is None or before is None else seen.joined(before)
            spans[name] = seen
    return spans


def _local(node: Node, rule: LinearRule | None) -> bool:
    """Whether each place of a node's image depends on places near it alone."""
    if len(node.shape) != 3:
        return False
    if isinstance(rule, AffineRule):
        return isinstance(rule.affine, ConvMap)
    if node.op is Op.AVGPOOL:
        return node.attributes["padding"] == (0, 0)
    return node.op in _POINTWISE


def _seen(node: Node, rule: LinearRule | None, span: Span) -> Span:
    """Of a local node's input, what a part of it sees, which may lie beyond the border."""
    if isinstance(rule, AffineRule) and isinstance(rule.affine, ConvMap):
        return _moved(span, rule.affine.stride, rule.affine.padding, rule.affine.extent)
    if node.op is Op.AVGPOOL:
        stride, kernel = node.attributes["stride"], node.attributes["kernel"]
        return _moved(span, stride, (0, 0), kernel)  # type: ignore[arg-type]
    return span


def _moved(
    span: Span, stride: tuple[int, int], padding: tuple[int, int], extent: tuple[int, int]
) -> Span:
    return Span(
        span.top * stride[0] - padding[0],
        (span.bottom - 1) * stride[0] - padding[0] + extent[0],
        span.left * stride[1] - padding[1],
        (span.right - 1) * stride[1] - padding[1] + extent[1],
    )


@dataclass(frozen=True)
class Tile:
    """Some neurons of a start node, flat in the cropped image and in the whole one."""

    network: CroppedNetwork
    local: Tensor
    neurons: Tensor


def tiles_of(whole: BoundNetwork, name: str, neurons: Tensor, most: int) -> list[Tile]:
    """The neurons of a start node in tiles of at most `most` neurons; none where whole rows are as
    quick.
    """
    node = whole.graph.node(name)
    if whole.features.ranks > 1 or not len(neurons) or not _local(node, whole.linear.get(name)):
        return []
    size = _best_size(whole, name, len(neurons))
    if not size:
        return []
    height, width = node.shape[1:]
    channel, place = neurons // (height * width), neurons % (height * width)
    row, column = place // width, place % width
    number = row // size * -(-width // size) + column // size
    found = []
    for tile in number.unique().tolist():
        top, left = (tile // -(-width // size)) * size, (tile % -(-width // size)) * size
        span = Span(top, top + size, left, left + size).within((height, width))
        network = CroppedNetwork(whole, name, span)
        inside = number == tile
        at = (channel * span.size[0] + row - top) * span.size[1] + column - left
        pairs = zip(at[inside].split(most), neurons[inside].split(most), strict=True)
        found += [Tile(network, local, of_image) for local, of_image in pairs]
    return found


def rows_of(tile: Tile, bounds: NetworkBounds, tag: Tagger) -> Tensor:
    """CROWN's lower bounds [S, B] of both signs of a tile's neurons, from bounds of the whole
    network and in their precision.
    """
    network, dtype = tile.network, bounds.dtype
    with torch.no_grad(), tag.kind(Memory.BOUNDS):
        intervals = bounds.intervals
        seen = {n: network.crop(n, intervals[n]) for n in network.spans if n in intervals}
        lines = bounds.lines
        for name, rule in network.relaxed.items():
            before = seen[network.graph.node(name).inputs[0]].outer(dtype)
            if network.spans[name] is not None:
                lines[name] = rule.relax(before.to(LEDGER) if name in bounds.fine else before)
        mine = network.crop(network.graph.input.name, bounds.box)
    with torch.no_grad(), tag.kind(Memory.A):
        start = start_frontier(network, network.start, tile.local, len(mine.lower), dtype)
        charges = WholeCharges(network, seen)
        done = advance(network, start, lines, {}, charges, fine=bounds.fine)
        return concretize(network, done, mine, charge=True)


def _best_size(whole: BoundNetwork, name: str, neurons: int) -> int:
    """The side of tiles that take the least work, by a tile in the middle; 0: whole rows."""
    behind = whole.ancestors(name)
    height, width = whole.graph.node(name).shape[1:]
    best, least = 0, WORTH * 2 * neurons * whole.work(behind)
    for size in TILES:
        top, left = (height - size) // 2, (width - size) // 2
        span = Span(top, top + size, left, left + size).within((height, width))
        network = CroppedNetwork(whole, name, span)
        count = -(-height // size) * -(-width // size)
        row = sum(
            network.graph.node(node.name).size
            * (whole.linear[node.name].summands if node.name in whole.linear else 1)
            for node in behind
        )
        work = 2 * neurons * row + count * TILE_CALLS * len(behind)
        if size < max(height, width) and work < least:
            best, least = size, work
    return best
