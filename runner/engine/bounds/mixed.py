"""Relaxations with a parameter: bundles of lines, of which every mix is as sound as they are.

A neuron has K lines below its function and K above, each list in the order in which they turn. Its
parameter t in [0, 1] says between which two neighbours the line lies that a row uses, and how far
from the first. A mix of two sound lines is sound, so whatever t an ascent finds proves something.
A row uses one side of each neuron, so that one parameter for both is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    starts; `turns` and `lifts`: what they change by until it ends.
    """

    slopes: Tensor
    offsets: Tensor
    turns: Tensor
    lifts: Tensor

    @staticmethod
    def of(
        below: tuple[Tensor, Tensor], above: tuple[Tensor, Tensor], size: Tensor, count: int
    ) -> Bundle:
        """Of slopes [K, B, I, n] and offsets [K, B, n] of each side, over |x| <= size [B, I, n].

        `count`: of the neurons whose offsets are added up.
        """
        sides = [_segments(*below, size, count, -1), _segments(*above, size, count, 1)]
        return Bundle(*(torch.cat(part) for part in zip(*sides, strict=True)))

    def changed(self, where: Tensor, other: Bundle) -> Bundle:
        """A bundle of one domain for B of them, with the other's M neurons, in their order, where
        they differ [B, n].
        """
        domain, neuron = where.nonzero().unbind(1)
        made = []
        for name in ("slopes", "offsets", "turns", "lifts"):
            mine, theirs = getattr(self, name), getattr(other, name)
            wide = mine.expand(-1, len(where), *mine.shape[2:]).clone()
            if mine.dim() == 4:
                for index in range(mine.shape[2]):
                    wide[:, domain, index, neuron] = theirs[:, 0, index]
            else:
                wide[:, domain, neuron] = theirs[:, 0]
            made.append(wide)
        return Bundle(*made)

    @property
    def segments(self) -> int:
        """Of each side."""
        return len(self.offsets) // 2


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
        bundle = self.bundle
        at = _Place(A.flatten(2), parameters, bundle.segments)
        slopes = [
            at.between(bundle.slopes[:, :, index], bundle.turns[:, :, index])
            for index in range(bundle.slopes.shape[2])
        ]
        return torch.stack(slopes, 2), at.between(bundle.offsets, bundle.lifts)

    def backward(self, A: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A [S, B, *out_shape] to A_in [S, B, *in_shape] and bias [S, B]; parameters [S, B, n]."""
        if parameters is None:
            return self.plain.backward(A)
        bundle = self.bundle
        found, constant = _Mixed.apply(
            A.flatten(2), parameters, bundle.slopes, bundle.offsets, bundle.turns, bundle.lifts
        )
        inputs = bundle.slopes.shape[2]
        shape = A.shape[2:] if inputs == 1 else (inputs, *A.shape[2:])
        return found.reshape(*A.shape[:2], *shape), constant


class _Mixed(torch.autograd.Function):
    """A' = A · slope and the sum of A · offset, of lines that the signs of A and the parameters
    choose; keeps nothing but those two for the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        parameters: Tensor,
        slopes: Tensor,
        offsets: Tensor,
        turns: Tensor,
        lifts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows, parameters, slopes, offsets, turns, lifts)
        at = _Place(rows, parameters, len(offsets) // 2)
        constant = summed(rows * at.between(offsets, lifts))
        parts = [
            rows * at.between(slopes[:, :, index], turns[:, :, index])
            for index in range(slopes.shape[2])
        ]
        return torch.stack(parts, 2), constant

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, parameters, slopes, offsets, turns, lifts = ctx.saved_tensors
        of_result, of_constant = gradients[0], gradients[1].unsqueeze(2)
        at = _Place(rows, parameters, len(offsets) // 2)
        of_parameters = of_rows = None
        if ctx.needs_input_grad[1]:
            change = of_constant * at.of(lifts)
            for index in range(slopes.shape[2]):
                change = change + of_result[:, :, index] * at.of(turns[:, :, index])
            of_parameters = change.mul_(rows).mul_(len(offsets) // 2)
        if ctx.needs_input_grad[0]:
            of_rows = of_constant * at.between(offsets, lifts)
            for index in range(slopes.shape[2]):
                line = at.between(slopes[:, :, index], turns[:, :, index])
                of_rows = of_rows.addcmul_(of_result[:, :, index], line)
        return of_rows, of_parameters, *(None,) * 4


class _Place:
    """Where in a bundle the lines of rows [S, B, n] lie."""

    def __init__(self, rows: Tensor, parameters: Tensor, segments: int) -> None:
        self._above = rows < 0
        self._alone = segments == 1
        # Steps along what overflowed are no number: the first line is as sound as any.
        parameters = parameters.nan_to_num(0.0)
        if self._alone:
            self._share = parameters
            return
        position = parameters * segments
        segment = position.floor().clamp_(0, segments - 1)
        self._share = (position - segment).clamp_(0, 1)
        self._index = (segment.long() + segments * self._above).unsqueeze(0)

    def of(self, values: Tensor) -> Tensor:
        """Of values by segment, [2 segments, B, n]: [S, B, n]."""
        if self._alone:
            return torch.where(self._above, values[1], values[0])
        wide = values.unsqueeze(1).expand(-1, *self._above.shape)
        return wide.gather(0, self._index)[0]

    def between(self, starts: Tensor, changes: Tensor) -> Tensor:
        return torch.addcmul(self.of(starts), self._share, self.of(changes))
