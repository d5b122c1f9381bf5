"""The features axis at work: exact tensor parallelism of the backward pass.

Each rank keeps the weights, slopes, α and A columns of its own neurons
(runner.engine.layout.feature_shares says which). Intermediate bounds are CROWN's everywhere, so
nothing is lost in tightness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from runner.contract.vocabulary import Memory
from runner.engine.bounds.affine import ConvMap, affine_terms
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.patches import convolution
from runner.engine.bounds.relaxed import BentRule
from runner.engine.bounds.rule_kinds import LinearRule
from runner.engine.bounds.rules import AveragePoolRule, ElementwiseAffineRule, ReshapeRule
from runner.engine.bounds.select import SelectRule
from runner.engine.bounds.tagging import Tagger
from runner.engine.bounds.weights import dtype_of
from runner.engine.layout.blocked_weights import TensorSource
from runner.engine.layout.feature_shares import FeaturePlan
from runner.engine.layout.group import Group
from runner.engine.layout.sharded_affine import HeldWeights, Placed, ShardedAffineRule
from runner.engine.network.blocks import cut_weights, weights_of
from runner.engine.network.graph import Graph, Node, Op


class ShardedFeatures:
    """The neurons of every node cut as `plan` says, and this rank's part of the weights."""

    def __init__(
        self,
        graph: Graph,
        plan: FeaturePlan,
        source: TensorSource,
        group: Group,
        device: torch.device,
        tag: Tagger,
    ) -> None:
        self._plan = plan
        self._group = group
        self._source = source
        self._device = device
        self._shapes = {node.name: node.shape for node in graph.nodes}
        self._dtype = dtype_of(graph)
        self._blocks: dict[str, tuple[slice, ...]] = {}
        for cut in cut_weights(weights_of(graph, source.shape)):
            self._blocks[cut.weight] = (
                *self._blocks.get(cut.weight, ()),
                slice(cut.start, cut.stop),
            )
        self._affine: dict[str, ShardedAffineRule] = {}
        with tag.kind(Memory.WEIGHTS):
            weights = {n.parameters["weight"] for n in graph.nodes if "weight" in n.parameters}
            names = {name for node in graph.nodes for name in node.parameters.values()}
            self._whole = {
                name: source.tensor(name).to(device)
                for name in sorted(names)
                if name not in weights or self._is_whole(graph, name)
            }
            for node in graph.nodes:
                if node.op in (Op.LINEAR, Op.CONV) and plan[node.name] is not None:
                    self._affine[node.name] = self._affine_rule(node, tag)

    def _is_whole(self, graph: Graph, weight: str) -> bool:
        users = [n for n in graph.nodes if n.parameters.get("weight") == weight]
        return any(self._plan[node.name] is None for node in users)

    @property
    def resting_bytes(self) -> int:
        """What this rank keeps of the parameters."""
        held = [rule.held for rule in self._affine.values()]
        return sum(tensor.nbytes for tensor in [*self._whole.values(), *held])

    @property
    def weights(self) -> HeldWeights:
        """For rules of nodes that are whole on every rank."""
        return HeldWeights(self._whole)

    def rule(self, node: Node, plain: LinearRule) -> LinearRule:
        """The rule with a backward pass over this rank's columns."""
        if node.name in self._affine:
            return self._affine[node.name]
        if self._plan[node.name] is None:
            return _WholeRule(plain, node, self)
        before = self._local_shape(node.inputs[0])
        mine = replace(node, shape=self._local_shape(node.name))
        match node.op:
            case Op.AVGPOOL if mine.size:
                return _LocalRule(plain, AveragePoolRule(mine, before), node, self)
            case Op.RESHAPE | Op.AVGPOOL:  # of no channel, nothing but the shape changes
                return _LocalRule(plain, ReshapeRule(before, mine.shape), node, self)
            case Op.SELECT:
                return _LocalRule(plain, self._select(node, mine, before), node, self)
            case Op.AFFINE:
                values = {
                    name: self.local(node.name, self._whole[name].expand(node.shape), 0)
                    for name in node.parameters.values()
                }
                rule = ElementwiseAffineRule(mine, HeldWeights(values))
                return _LocalRule(plain, rule, node, self)
        return plain  # Add, Sub and Concat along another dimension know nothing of it

    def bent(self, node: Node, plain: BentRule) -> BentRule:
        """The rule of a relaxed node: of a cut one, sums of own neurons."""
        return plain if self._plan[node.name] is None else _OwnSums(node, self)

    def _select(self, node: Node, mine: Node, before: tuple[int, ...]) -> LinearRule:
        """Of pieces that are moved within themselves: own ones."""
        shares = self._plan[node.inputs[0]]
        if shares is None:
            raise ValueError(f"node {node.inputs[0]} is not cut")
        name = node.parameters["index"]
        index = self.local(node.name, self._whole[name].reshape(node.shape), 0)
        first = shares.limits[self._group.rank] * prod(self._shapes[node.inputs[0]][1:])
        moved = torch.where(index < 0, index, index - first)
        return SelectRule(mine, before, HeldWeights({name: moved}))

    def local(self, name: str, values: Tensor, leading: int) -> Tensor:
        shares = self._plan[name]
        if shares is None:
            return values
        return values.narrow(
            leading, shares.limits[self._group.rank], shares.length(self._group.rank)
        )

    @property
    def ranks(self) -> int:
        return self._group.size

    def own(self, node: Node, of_all: Tensor) -> Tensor:
        """Of flat values [B, neurons] of a node: the rank's own."""
        return self.local(node.name, of_all.reshape(-1, *node.shape), 1).flatten(1)

    def in_turn(self, count: int) -> slice:
        return slice(self._group.rank, count, self._group.size)

    def counted(self, name: str, constant: Tensor) -> Tensor:
        if self._plan[name] is not None:
            return constant
        return _CountedOnce.apply(constant, self._group)  # type: ignore[no-any-return]

    def whole(self, name: str, rows: Tensor) -> Tensor:
        return rows if self._plan[name] is None else self.gathered(name, rows)

    def total(self, partial: Tensor) -> Tensor:
        return _Total.apply(partial, self._group)  # type: ignore[no-any-return]

    def arriving(self, name: str, rows: Tensor) -> Tensor:
        """Of whole A [S, B, *shape] of a node that is cut: this rank's columns."""
        if self._plan[name] is None:
            return rows
        return _Arriving.apply(rows, self, name)  # type: ignore[no-any-return]

    def gathered(self, name: str, rows: Tensor) -> Tensor:
        """Own columns [S, B, *own shape] of a node to whole ones."""
        shares = self._plan[name]
        if shares is None:
            raise ValueError(f"node {name} is not cut")
        whole = rows.new_zeros((*rows.shape[:2], *self._shapes[name]))
        self.local(name, whole, 2).copy_(rows)
        return self._group.all_reduce(whole)

    def _local_shape(self, name: str) -> tuple[int, ...]:
        shares, shape = self._plan[name], self._shapes[name]
        return shape if shares is None else (shares.length(self._group.rank), *shape[1:])

    def _affine_rule(self, node: Node, tag: Tagger) -> ShardedAffineRule:
        outputs, before = self._plan[node.name], node.inputs[0]
        if outputs is None:
            raise ValueError(f"node {node.name} is not cut")
        name = node.parameters["weight"]
        blocks = self._blocks[name]
        placed = Placed(node, self._shapes[before], self._plan[before], outputs, blocks)

        def fetch(rows: slice) -> Tensor:
            """W[rows], read a block of columns at a time."""
            _, *others = self._source.shape(name)
            shape = (rows.stop - rows.start, *others)
            part = torch.empty(shape, dtype=self._dtype, device=self._device)
            for block in blocks:
                columns = self._source.columns(name, block.start, block.stop)
                part[:, block] = columns[rows].to(self._device)
            return part

        bias = self._whole[node.parameters["bias"]]
        terms = affine_terms(self._source.shape(name), node)
        return ShardedAffineRule(placed, fetch, bias, self._group, terms, tag)


class _WholeVectors:
    """What works on whole vectors, which every rank has: everything but the backward pass."""

    def __init__(self, whole: LinearRule) -> None:
        self._whole = whole

    @property
    def convolution(self) -> ConvMap | None:
        return convolution(self._whole)

    def terms(self, dtype: torch.dtype) -> int:
        return self._whole.terms(dtype)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._whole.forward(*inputs)

    def interval(self, *inputs: Interval) -> Interval:
        return self._whole.interval(*inputs)

    @property
    def summands(self) -> int:
        return self._whole.summands

    @property
    def whole(self) -> bool:
        return self._whole.whole

    def directions(self, *inputs: Tensor) -> Tensor:
        return self._whole.directions(*inputs)

    def spread(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], columns: int) -> Tensor:
        return self._whole.spread(errors, sizes, columns)


class _LocalRule(_WholeVectors):
    """Whole vectors by one rule, own columns by another."""

    def __init__(
        self, whole: LinearRule, local: LinearRule, node: Node, features: ShardedFeatures
    ) -> None:
        super().__init__(whole)
        self._local = local
        self._node = node
        self._features = features

    def interval(self, *inputs: Interval) -> Interval:
        whole = self._whole.interval(*inputs)
        return replace(whole, sums=self._own(whole.sums), off=self._own(whole.off))

    def _own(self, of_all: Tensor | None) -> Tensor | None:
        return None if of_all is None else self._features.own(self._node, of_all)

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        return self._local.backward(rows)


class _OwnSums(BentRule):
    """Of a node that is cut: what passes are charged for is of the rank's own neurons."""

    def __init__(self, node: Node, features: ShardedFeatures) -> None:
        super().__init__(node)
        self._features = features

    def interval(self, *inputs: Interval) -> Interval:
        whole = super().interval(*inputs)
        sums = None if whole.sums is None else self._features.own(self._node, whole.sums)
        return replace(whole, sums=sums)


class _WholeRule(_WholeVectors):
    """An operator that cannot be cut: every rank has all of its A, and passes on its own part."""

    def __init__(self, plain: LinearRule, node: Node, features: ShardedFeatures) -> None:
        super().__init__(plain)
        self._node = node
        self._features = features

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        parts, constant = self._whole.backward(rows)
        arrived = [
            self._features.arriving(name, part)
            for name, part in zip(self._node.inputs, parts, strict=True)
        ]
        return arrived, constant


class _Total(torch.autograd.Function):
    """A sum over ranks; every rank has the same result, so the gradient is the result's."""

    @staticmethod
    def forward(ctx: FunctionCtx, partial: Tensor, group: Group) -> Tensor:
        return group.all_reduce(partial.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _CountedOnce(torch.autograd.Function):
    """What every rank has computed alike enters the total from rank 0 alone."""

    @staticmethod
    def forward(ctx: FunctionCtx, constant: Tensor, group: Group) -> Tensor:
        return constant.clone() if group.rank == 0 else torch.zeros_like(constant)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Arriving(torch.autograd.Function):
    """Own columns of whole ones; the gradient of the whole is gathered from all ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, features: ShardedFeatures, name: str) -> Tensor:
        ctx.features, ctx.name = features, name
        return features.local(name, rows, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.features.gathered(ctx.name, gradients[0]), None, None
