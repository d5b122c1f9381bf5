"""Operators off the hot path that are relaxed: everything that bends but ReLU."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.bounds import curves, exp_sums, function, matmul, product, relaxation
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

    def terms(self, dtype: torch.dtype) -> int:
        """Of an operator whose coefficients are sums: those of the longest one."""
        if self._node.op is Op.MATMUL:
            return matmul.terms(self._node, dtype)
        if self._node.op is Op.EXP_SUMS:
            return exp_sums.terms(self._node, dtype)
        raise ValueError(f"coefficients of {self._node.op} are no sums")

    def interval(self, *inputs: Interval) -> Interval:
        lower, upper = inputs[0].lower, inputs[0].upper
        if self._node.op is Op.MATMUL:
            return matmul.interval(self._node, inputs[0])
        if self._node.op is Op.EXP_SUMS:
            return exp_sums.interval(self._node, inputs[0])
        if self._node.op is Op.PRODUCT:
            return Interval(*product.interval(lower, upper))
        if self._node.op is Op.FUNCTION:
            return Interval(*function.interval(function_of(self._node), lower, upper))
        if self._node.op in CURVES:
            return Interval(*curves.interval(self._node.op, lower, upper))
        return Interval(*relaxation.interval(self._node, lower, upper))

    def relax(self, before: Interval) -> relaxation.Relaxation:
        if self._node.op is Op.MATMUL:
            return matmul.relax(self._node, before)
        if self._node.op is Op.EXP_SUMS:
            return exp_sums.relax(self._node, before)
        lower, upper = before.lower, before.upper
        plain = self._plain(lower, upper)
        if self._node.op is Op.MAXPOOL:
            return plain
        return MixedRelaxation(lambda: plain, lambda: bundle(self._node, lower, upper))

    def _plain(self, lower: Tensor, upper: Tensor) -> relaxation.Relaxation:
        if self._node.op is Op.PRODUCT:
            return product.relax(lower, upper)
        if self._node.op is Op.FUNCTION:
            return function.relax(function_of(self._node), lower, upper)
        if self._node.op in CURVES:
            return curves.relax(self._node.op, lower, upper)
        return relaxation.relax(self._node, lower, upper)
