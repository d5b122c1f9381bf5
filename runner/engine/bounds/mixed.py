"""Relaxations with a parameter: bundles of lines, of which every mix is as sound as they are.

A neuron has K lines below its function and K above, each list in the order in which they turn. Its
parameter t in [0, 1] says between which two neighbours the line lies that a row uses, and how far
from the first. A mix of two sound lines is sound, so whatever t an ascent finds proves something.
A row uses one side of each neuron, so that one parameter for both is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from runner.engine.bounds.relaxation import Relaxation
from runner.engine.bounds.rounding import (
    COEFFICIENT_ROUNDINGS,
    gamma,
    smallest,
    summands,
    summed,
    unit,
)

# Roundings of a mix: of a difference, a product and a sum.
_MIX = 8


@runtime_checkable
class Parametrised(Protocol):
    """A relaxation of which rows choose parameters in [0, 1], each as sound as the others."""

    def initial(self, rows: int) -> Tensor:
        """Parameters [S, B, n] before the first step: near to the lines without any."""

    def backward(self, A: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A [S, B, *out_shape] to A_in [S, B, *in_shape] and bias [S, B]."""


@dataclass(frozen=True)
class Bundle:
    """Between each two neighbours of K lines one segment, those below f before those above it.

    slopes [2 (K - 1), B, I, n] of each of I inputs and offsets [2 (K - 1), B, n], where a segment
    starts; `turns` and `lifts`: what they change by until it ends. B is 1 where all domains have
    the same lines, but for those that are `moved`.
    """

    slopes: Tensor
    offsets: Tensor
    turns: Tensor
    lifts: Tensor
    moved: Moved | None = None

    @staticmethod
    def of(
        below: tuple[Tensor, Tensor], above: tuple[Tensor, Tensor], size: Tensor, count: int
    ) -> Bundle:
        """Of slopes [K, B, I, n] and offsets [K, B, n] of each side, over |x| <= size [B, I, n].

        `count`: of the neurons whose offsets are added up.
        """
        sides = [_segments(*below, size, count, -1), _segments(*above, size, count, 1)]
        slopes, offsets, turns, lifts = (torch.cat(part) for part in zip(*sides, strict=True))
        return Bundle(slopes, offsets, turns, lifts)

    def changed(self, where: Tensor, other: Bundle) -> Bundle:
        """A bundle of one domain for B of them, with the other's M neurons, in their order, where
        they differ [B, n].
        """
        domain, neuron = where.nonzero().unbind(1)
        return replace(self, moved=Moved(domain, neuron, other))

    @property
    def segments(self) -> int:
        """Of each side."""
        return len(self.offsets) // 2


@dataclass(frozen=True)
class Moved:
    """M neurons of some domains with lines of their own: which domain and neuron each is [M], and
    the `lines` of one domain of M. They are few, and a bundle of each domain would take room.
    """

    domain: Tensor
    neuron: Tensor
    lines: Bundle


def _segments(
    slopes: Tensor, offsets: Tensor, size: Tensor, count: int, side: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Offsets moved out by the rounding of a mix, and of the sum of all neurons it is part of."""
    dtype = offsets.dtype
    reach = (slopes.abs() * size).sum(2)
    reach, sizes = (torch.maximum(part[:-1], part[1:]) for part in (reach, offsets.abs()))
    room = gamma(summands(count, dtype) + COEFFICIENT_ROUNDINGS, dtype)
    off = (reach + sizes) * (_MIX * unit(dtype)) + sizes * room + _MIX * smallest(dtype)
    starts, ends = offsets[:-1] + side * off, offsets[1:] + side * off
    starts, ends = (
        end.nan_to_num(side * torch.inf, torch.inf, -torch.inf) for end in (starts, ends)
    )
    unknown = starts.isinf() | ends.isinf()
    starts = torch.where(unknown, side * torch.inf, starts)
    lifts = torch.where(unknown, 0.0, ends - starts)
    return slopes[:-1], starts, slopes[1:] - slopes[:-1], lifts


class MixedRelaxation:
    """Lines without a parameter where none is given, else a mix; each made when first needed."""

    def __init__(self, plain: Callable[[], Any], make: Callable[[], Bundle]) -> None:
        self._plain = plain
        self._make = make

    @cached_property
    def plain(self) -> Relaxation:
        made: Relaxation = self._plain()
        return made

    @cached_property
    def bundle(self) -> Bundle:
        with torch.no_grad():
            return self._make()

    def initial(self, rows: int) -> Tensor:
        """Parameters before the first step, [S, B, n]: near to the plain lines."""
        offsets = self.bundle.offsets
        return offsets.new_full((rows, *offsets.shape[1:]), 0.5)

    def lines(self, A: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Of every neuron by itself: slopes [S, B, I, n] and offsets [S, B, n]."""
        at = _Place(A.flatten(2), parameters, self.bundle)
        slopes = [at.slopes(index) for index in range(self.bundle.slopes.shape[2])]
        return torch.stack(slopes, 2), at.offsets

    def backward(self, A: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A [S, B, *out_shape] to A_in [S, B, *in_shape] and bias [S, B]; parameters [S, B, n]."""
        if parameters is None:
            return self.plain.backward(A)
        bundle = self.bundle
        found, constant = _Mixed.apply(A.flatten(2), parameters, bundle)
        inputs = bundle.slopes.shape[2]
        shape = A.shape[2:] if inputs == 1 else (inputs, *A.shape[2:])
        return found.reshape(*A.shape[:2], *shape), constant


class _Mixed(torch.autograd.Function):
    """A' = A · slope and the sum of A · offset, of lines that the signs of A and the parameters
    choose; keeps nothing but those two for the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, parameters: Tensor, bundle: Bundle
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows, parameters)
        ctx.bundle = bundle
        at = _Place(rows, parameters, bundle)
        constant = summed(rows * at.offsets)
        parts = [rows * at.slopes(index) for index in range(bundle.slopes.shape[2])]
        return torch.stack(parts, 2), constant

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, parameters = ctx.saved_tensors
        bundle: Bundle = ctx.bundle
        of_result, of_constant = gradients[0], gradients[1].unsqueeze(2)
        at = _Place(rows, parameters, bundle)
        of_parameters = of_rows = None
        if ctx.needs_input_grad[1]:
            change = of_constant * at.lifts
            for index in range(bundle.slopes.shape[2]):
                change = change + of_result[:, :, index] * at.turns(index)
            of_parameters = change.mul_(rows).mul_(bundle.segments)
        if ctx.needs_input_grad[0]:
            of_rows = of_constant * at.offsets
            for index in range(bundle.slopes.shape[2]):
                of_rows = of_rows.addcmul_(of_result[:, :, index], at.slopes(index))
        return of_rows, of_parameters, None


class _Place:
    """Where in a bundle the lines of rows [S, B, n] lie."""

    def __init__(self, rows: Tensor, parameters: Tensor, bundle: Bundle) -> None:
        self._bundle = bundle
        # Steps along what overflowed are no number: the first line is as sound as any.
        self._share = parameters.nan_to_num(0.0)
        # [S, B, n], among the segments of both sides.
        self._index = (rows < 0).long()
        if bundle.segments > 1:
            position = self._share * bundle.segments
            segment = position.floor().clamp_(0, bundle.segments - 1)
            self._share = (position - segment).clamp_(0, 1)
            self._index = segment.long() + bundle.segments * self._index

    def slopes(self, index: int) -> Tensor:
        """Of one input, [S, B, n]."""
        starts = self._of(lambda lines: lines.slopes[:, :, index])
        return torch.addcmul(starts, self._share, self.turns(index))

    def turns(self, index: int) -> Tensor:
        return self._of(lambda lines: lines.turns[:, :, index])

    @property
    def offsets(self) -> Tensor:
        return torch.addcmul(self._of(lambda lines: lines.offsets), self._share, self.lifts)

    @property
    def lifts(self) -> Tensor:
        return self._of(lambda lines: lines.lifts)

    def _of(self, part: Callable[[Bundle], Tensor]) -> Tensor:
        """Of values by segment, [2 segments, B or 1, n]: [S, B, n]."""
        found, moved = _picked(part(self._bundle), self._index), self._bundle.moved
        if moved is not None:
            at = self._index[:, moved.domain, moved.neuron].unsqueeze(1)
            found[:, moved.domain, moved.neuron] = _picked(part(moved.lines), at)[:, 0]
        return found


def _picked(values: Tensor, index: Tensor) -> Tensor:
    return values.unsqueeze(1).expand(-1, *index.shape).gather(0, index.unsqueeze(0))[0]
