"""Columns of forms of an image that are zero but in a window: they take what that takes.

An error that a neuron of an early layer brings in reaches few places of the next ones. So all of
them can be symbols, where whole columns would have room for some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.engine.bounds.affine import ConvMap
from runner.engine.bounds.features import Features
from runner.engine.bounds.rule_kinds import ConvolutionRule, LinearRule

# Patches that pass a convolution at once.
AT_ONCE = 256


@dataclass(frozen=True)
class Dealt:
    """Which of `count` patches a rank keeps, where ranks deal them out: their numbers [K]."""

    features: Features
    numbers: Tensor
    count: int

    @staticmethod
    def of(features: Features, count: int, device: torch.device) -> Dealt | None:
        if features.ranks == 1:
            return None
        return Dealt(features, torch.arange(count, device=device)[features.in_turn(count)], count)

    def joined(self, own: Tensor) -> Tensor:
        """What belongs to each patch, from the rank's own [K, ...]: [count, ...], on all ranks."""
        whole = own.new_zeros((self.count, *own.shape[1:]))
        whole[self.numbers] = own
        return self.features.total(whole)

    def select(self, mask: Tensor) -> Dealt:
        """Those of all [count] where it holds, numbered anew."""
        numbers = (mask.cumsum(0) - 1)[self.numbers[mask[self.numbers]]]
        return Dealt(self.features, numbers, int(mask.sum()))


@dataclass(frozen=True)
class Patches:
    """values: [K, channels, height, width], each the part of a column [channels, *image] whose
    first row and column are top and left [K]. Beyond the border of the image values are zero.
    dealt: which of all they are, where other ranks have the others.
    """

    values: Tensor
    top: Tensor
    left: Tensor
    image: tuple[int, int]
    dealt: Dealt | None = None

    def __len__(self) -> int:
        """Of all ranks."""
        return len(self.values) if self.dealt is None else self.dealt.count

    @staticmethod
    def of_neurons(
        neurons: Tensor, sizes: Tensor, shape: tuple[int, ...], features: Features
    ) -> Patches:
        """One for each of some neurons [K] of an image, flat: its size [K] where it is."""
        channels, height, width = shape
        dealt = Dealt.of(features, len(neurons), neurons.device)
        if dealt is not None:
            neurons, sizes = neurons[dealt.numbers], sizes[dealt.numbers]
        place = neurons % (height * width)
        values = sizes.new_zeros((len(neurons), channels, 1, 1))
        index = (neurons // (height * width)).reshape(-1, 1, 1, 1)
        values.scatter_(1, index, sizes.reshape(-1, 1, 1, 1))
        return Patches(values, place // width, place % width, (height, width), dealt)

    @property
    def _is_whole(self) -> bool:
        return self.values.shape[2:] == self.image

    @cached_property
    def _index(self) -> tuple[Tensor, Tensor]:
        """[K, height, width]: the flat place in the image, and whether that is within it."""
        height, width = self.values.shape[2:]
        device = self.values.device
        row = self.top[:, None] + torch.arange(height, device=device)
        column = self.left[:, None] + torch.arange(width, device=device)
        inside = ((row >= 0) & (row < self.image[0]))[:, :, None]
        inside = inside & ((column >= 0) & (column < self.image[1]))[:, None, :]
        row, column = row.clamp(0, self.image[0] - 1), column.clamp(0, self.image[1] - 1)
        return row[:, :, None] * self.image[1] + column[:, None, :], inside

    def to(self, dtype: torch.dtype) -> Patches:
        return replace(self, values=self.values.to(dtype))

    def select(self, mask: Tensor) -> Patches:
        """Those of all where it holds."""
        if self.dealt is None:
            return self._part(mask)
        own = self._part(mask[self.dealt.numbers])
        return replace(own, dealt=self.dealt.select(mask))

    def _part(self, index: Tensor | slice) -> Patches:
        return replace(self, values=self.values[index], top=self.top[index], left=self.left[index])

    @property
    def mass(self) -> Tensor:
        """How much each of all moves all neurons together."""
        own = self.values.abs().flatten(1).sum(1)
        return own if self.dealt is None else self.dealt.joined(own)

    def reach(self) -> Tensor:
        """The absolute values of all, added up where they lie: [channels, *image]."""
        own = self._own_reach()
        return own if self.dealt is None else self.dealt.features.total(own)

    def _own_reach(self) -> Tensor:
        size = self.values.abs()
        if self._is_whole:
            return size.sum(0)
        place, _ = self._index
        channels = size.shape[1]
        total = size.new_zeros((channels, self.image[0] * self.image[1]))
        total.index_add_(1, place.flatten(), size.permute(1, 0, 2, 3).reshape(channels, -1))
        return total.reshape(channels, *self.image)

    def scaled(self, slopes: Tensor) -> Patches:
        """Times slopes [channels, *image]."""
        return self._changed(slopes, torch.mul)

    def masked(self, mask: Tensor) -> Patches:
        """Zero where the mask [channels, *image] holds."""
        return self._changed(mask, lambda values, at: values.masked_fill(at, 0.0))

    def _changed(self, of_image: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Patches:
        if self._is_whole:
            return replace(self, values=change(self.values, of_image.unsqueeze(0)))
        place, _ = self._index
        at = of_image.flatten(1).index_select(1, place.flatten())
        at = at.unflatten(1, tuple(place.shape)).transpose(0, 1)
        return replace(self, values=change(self.values, at))

    def whole(self) -> Tensor:
        """All as columns [len(self), channels, *image]."""
        own = self._own_whole()
        return own if self.dealt is None else self.dealt.joined(own)

    def _own_whole(self) -> Tensor:
        if self._is_whole:
            return self.values
        count, channels = self.values.shape[:2]
        result = self.values.new_zeros((count, channels, self.image[0] * self.image[1]))
        place, _ = self._index
        # Places beyond the border were moved to it, where they add their zeros.
        index = place.flatten(1).unsqueeze(1).expand(-1, channels, -1)
        result.scatter_add_(2, index, self.values.flatten(2))
        return result.reshape(count, channels, *self.image)

    def through(self, conv: ConvMap) -> Patches:
        """After a convolution, without its bias, that was fetched."""
        _, height, width = conv.node.shape
        size = self._size_after(conv)
        if size == (height, width):
            parts = [conv.apply(part._own_whole()) for part in self._parts()]
            zeros = torch.zeros_like(self.top)
            return Patches(torch.cat(parts), zeros, zeros, (height, width), self.dealt)
        moved = conv.unpadded(size)
        top, above = _first(self.top, conv, 0)
        left, before = _first(self.left, conv, 1)
        found = Patches(
            torch.cat(
                [
                    moved.apply(part._placed(moved.input_shape, up, back))
                    for part, up, back in zip(
                        self._parts(), above.split(AT_ONCE), before.split(AT_ONCE), strict=True
                    )
                ]
            ),
            top,
            left,
            (height, width),
            self.dealt,
        )
        _, inside = found._index
        return replace(found, values=torch.where(inside.unsqueeze(1), found.values, 0.0))

    def values_after(self, conv: ConvMap) -> int:
        """Of each, after a convolution."""
        return conv.node.shape[0] * prod(self._size_after(conv))

    @staticmethod
    def values_of_one(conv: ConvMap) -> int:
        """Of a patch of one place, after a convolution."""
        return conv.node.shape[0] * prod(_size(conv, (1, 1)))

    def _size_after(self, conv: ConvMap) -> tuple[int, int]:
        image = conv.node.shape[1], conv.node.shape[2]
        return image if self._is_whole else _size(conv, self.values.shape[2:])

    def _parts(self) -> list[Patches]:
        """The rank's own; one of none where it has none."""
        starts = range(0, max(1, len(self.values)), AT_ONCE)
        return [self._part(slice(start, start + AT_ONCE)) for start in starts]

    def _placed(self, shape: tuple[int, ...], above: Tensor, before: Tensor) -> Tensor:
        """In the middle of zeros [K, *shape], so many rows and columns [K] from the first."""
        placed = self.values.new_zeros((len(self.values), *shape))
        offsets = torch.stack((above, before), 1)
        for up, back in offsets.unique(dim=0).tolist():
            mine = (offsets == offsets.new_tensor([up, back])).all(1)
            some = self.values[mine]
            down, right = shape[1] - up - some.shape[2], shape[2] - back - some.shape[3]
            placed[mine] = F.pad(some, (back, right, up, down))
        return placed


def _size(conv: ConvMap, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the output that may see a window, wherever it lies; of the whole image
    where that is no more, or where the convolution jumps over places.
    """
    image = conv.node.shape[1], conv.node.shape[2]
    height, width = (
        (size[axis] + conv.extent[axis] - 2) // conv.stride[axis] + 1 for axis in (0, 1)
    )
    jumps = conv.stride[0] > conv.extent[0] or conv.stride[1] > conv.extent[1]
    return image if jumps or height >= image[0] or width >= image[1] else (height, width)


def _first(start: Tensor, conv: ConvMap, axis: int) -> tuple[Tensor, Tensor]:
    """The first row (or column) of the output that sees a patch which starts there [K], and how
    far before the patch it looks.
    """
    reach = start + conv.padding[axis] - conv.extent[axis] + 1
    first = -torch.div(-reach, conv.stride[axis], rounding_mode="floor")
    return first, start - (first * conv.stride[axis] - conv.padding[axis])


def convolution(rule: LinearRule | None) -> ConvMap | None:
    """None where a rule is none that patches pass."""
    return rule.convolution if isinstance(rule, ConvolutionRule) else None
