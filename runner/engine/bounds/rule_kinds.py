"""What passes ask of an operator's rule, by its kind: any, linear, with a shorter way, relaxed.

Backward turns coefficients of the output, A [S, B, *output], into coefficients of each input and
a constant [S, B] (None: zero). Operators that are not linear relax over their input's bounds first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from runner.engine.bounds.affine import ConvMap
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.relu import ReluRelaxation


class Rule(Protocol):
    """Any operator. Values are [B, *shape] of each input."""

    def forward(self, *inputs: Tensor) -> Tensor: ...

    def interval(self, *inputs: Interval) -> Interval: ...


class LinearRule(Rule, Protocol):
    """An operator that is linear in all its inputs together.

    `interval` gives the sums of a node that rounds.
    """

    def terms(self, dtype: torch.dtype) -> int:
        """Summands of the longest sum of `backward`, as far as they are not `summed`."""
        ...

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]: ...

    @property
    def summands(self) -> int:
        """Products that `forward` adds up for one neuron."""
        ...

    @property
    def whole(self) -> bool:
        """Whether all parameters are whole numbers, so that whole numbers become whole ones; asked
        of all ranks alike.
        """
        ...

    def directions(self, *inputs: Tensor) -> Tensor:
        """`forward` without its constants: [N, *shape] of each input."""
        ...

    def spread(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], columns: int) -> Tensor:
        """How far values [B, *shape] are off whose inputs are off by `errors`, and what rounding of
        `forward` and of so many `directions` may add, whose absolute values add up to `sizes`.
        """
        ...


@runtime_checkable
class StartRule(Protocol):
    """A LinearRule that has a shorter way for one-hot rows than `backward`."""

    def start(self, neurons: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        """Flat neurons [N] -> rows [N, *input] and constants [N]; and how far neurons [N] may lie
        from these whatever rounds, in float64, None where they are what the file says.
        """
        ...


@runtime_checkable
class NarrowRule(Protocol):
    """A LinearRule that has a shorter way for rows that are zero at most outputs."""

    def backward_at(self, rows: Tensor, outputs: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """`backward` of rows that are zero, and have no gradient, at all but some flat outputs."""
        ...


@runtime_checkable
class ConvolutionRule(Protocol):
    """A LinearRule that parts of images may pass by themselves."""

    @property
    def convolution(self) -> ConvMap | None:
        """Of all its channels; None: it is of no images."""
        ...


class RuleRelaxation(Protocol):
    """A valid linear lower bound of A f(x) over the box that it was made for."""

    def backward(self, rows: Tensor) -> tuple[Tensor, Tensor]: ...


class RelaxedRule(Rule, Protocol):
    """An operator of one input that is relaxed; `relax` takes that input's bounds."""

    def relax(self, before: Interval) -> RuleRelaxation | ReluRelaxation: ...
