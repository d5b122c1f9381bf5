"""Operators off the hot path that are relaxed: everything that bends but ReLU."""

from __future__ import annotations

from torch import Tensor

from runner.engine.bounds import curves, function, product, relaxation
from runner.engine.bounds.bundles import bundle
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.mixed import MixedRelaxation
from runner.engine.functions import function_of
from runner.engine.network.evaluate import apply
from runner.engine.network.graph import CURVES, Node, Op


class BentRule:
    """Each operator by the module that knows its lines."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def forward(self, *inputs: Tensor) -> Tensor:
        return apply(self._node, {}, *inputs)

    def interval(self, *inputs: Interval) -> Interval:
        lower, upper = inputs[0].lower, inputs[0].upper
        if self._node.op is Op.PRODUCT:
            return Interval(*product.interval(lower, upper))
        if self._node.op is Op.FUNCTION:
            return Interval(*function.interval(function_of(self._node), lower, upper))
        if self._node.op in CURVES:
            return Interval(*curves.interval(self._node.op, lower, upper))
        return Interval(*relaxation.interval(self._node, lower, upper))

    def relax(self, before: Interval) -> relaxation.Relaxation:
        lower, upper = before.lower, before.upper
        plain = self._plain(lower, upper)
        if self._node.op is Op.MAXPOOL:
            return plain
        return MixedRelaxation(plain, lambda: bundle(self._node, lower, upper))

    def _plain(self, lower: Tensor, upper: Tensor) -> relaxation.Relaxation:
        if self._node.op is Op.PRODUCT:
            return product.relax(lower, upper)
        if self._node.op is Op.FUNCTION:
            return function.relax(function_of(self._node), lower, upper)
        if self._node.op in CURVES:
            return curves.relax(self._node.op, lower, upper)
        return relaxation.relax(self._node, lower, upper)
