"""Products with slopes of which most are zero, as a neuron of a convolution sees a patch alone.

An input [*shape] is seen as [parts, places]: an image's channels, and the pixels of each. What a
neuron sees lies between a first and a last place. Neurons in the order of these are cut into bands;
slopes are kept, and multiplied, between a band's own first and last place: rows of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from torch import Tensor

MOST_BANDS = 8
# A product with so many slopes takes about as long as a call. Bands make some, however many they
# are; each makes some more, and one for each part, as those of an image are multiplied apart.
CALL_COST, CALLS, CALLS_OF_BAND = 6_000, 10, 2
# Of the cost of all slopes, what bands may cost: batches of one row gain little from them.
WORTH = 0.67


@dataclass(frozen=True)
class PlaneBand:
    """Some neurons, and the places that they see."""

    neurons: slice
    places: slice

    @property
    def area(self) -> int:
        neurons, places = self.neurons, self.places
        return int((neurons.stop - neurons.start) * (places.stop - places.start))


@dataclass(frozen=True)
class BandCut:
    """Of P neurons' slopes, all that are not zero, in bands of an input [parts, places]."""

    neurons: int
    parts: int
    places: int
    bands: tuple[PlaneBand, ...]

    @property
    def whole(self) -> bool:
        """Whether everything is kept, in one piece."""
        return self.bands == (PlaneBand(slice(0, self.neurons), slice(0, self.places)),)

    @property
    def cost(self) -> int:
        """Of a product, in slopes."""
        calls = CALLS + (CALLS_OF_BAND + self.parts) * len(self.bands)
        return CALL_COST * calls + self.parts * sum(band.area for band in self.bands)


def order_of(slopes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """In which order [P] slopes [P, inputs] of neurons are cut; as they are, if not at all."""
    seen = slopes != 0
    ends = (_ends(seen, parts) for parts in _parts(shape))
    orders = [torch.arange(len(seen), device=seen.device)]
    orders += [(first + last).argsort(stable=True) for first, last in ends]
    return min(orders, key=lambda order: cut(seen[order], shape).cost)


def cut(seen: Tensor, shape: tuple[int, ...]) -> BandCut:
    """The cheapest of neurons in this order, of which inputs they see [P, inputs]; one piece where
    none is much cheaper.
    """
    neurons, inputs = seen.shape
    whole = BandCut(neurons, 1, inputs, (PlaneBand(slice(0, neurons), slice(0, inputs)),))
    found = [whole]
    for parts in _parts(shape):
        first, last = (ends.tolist() for ends in _ends(seen, parts))
        for count in range(1, min(MOST_BANDS, neurons) + 1):
            size = -(-neurons // count)
            bands = []
            for start in range(0, neurons, size):
                of = slice(start, min(start + size, neurons))
                stop = max(last[of])
                bands.append(PlaneBand(of, slice(min(*first[of], stop), stop)))
            found.append(BandCut(neurons, parts, inputs // parts, tuple(bands)))
    best = min(found, key=lambda one: one.cost)
    return best if best.cost <= WORTH * neurons * inputs else whole


@dataclass(frozen=True)
class BandedSlopes:
    """S sets of slopes [S, P, inputs]; of each band, a block [S, neurons, parts, places]."""

    cut: BandCut
    blocks: tuple[Tensor, ...]

    @staticmethod
    def of(slopes: Tensor, shape: tuple[int, ...]) -> BandedSlopes:
        """The slopes as they are, whatever their order; `order_of` says in which they cost least.

        On a GPU calls cost more than zeros do: all are one band.
        """
        seen = (slopes != 0).any(0)
        made = cut(seen, shape if slopes.device.type == "cpu" else ())
        if made.whole:
            return BandedSlopes(made, (slopes.unsqueeze(2),))
        wide = slopes.reshape(*slopes.shape[:2], made.parts, made.places)
        blocks = (wide[:, band.neurons, :, band.places].contiguous() for band in made.bands)
        return BandedSlopes(made, tuple(blocks))

    def __len__(self) -> int:
        return len(self.blocks[0])

    def dense(self) -> Tensor:
        """[S, P, inputs]."""
        made = self.cut
        if made.whole:
            return self.blocks[0].squeeze(2)
        found = self.blocks[0].new_zeros((len(self), made.neurons, made.parts, made.places))
        for band, block in zip(made.bands, self.blocks, strict=True):
            found[:, band.neurons, :, band.places] = block
        return found.flatten(2)

    def times(self, values: Tensor, number: int) -> Tensor:
        """values [..., P] · slopes of one set -> [..., inputs], in the values' precision."""
        blocks = [block[number].to(values.dtype) for block in self.blocks]
        if self.cut.whole:
            return values @ blocks[0].squeeze(1)
        return _Product.apply(values, self.cut, blocks)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    """Values [..., P] times blocks [neurons, parts, places]; these have no gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, made: BandCut, blocks: list[Tensor]) -> Tensor:
        ctx.made, ctx.blocks = made, blocks
        rows = values.reshape(-1, made.neurons)
        result = rows.new_zeros((len(rows), made.parts, made.places))
        by_part = result.transpose(0, 1)
        for band, block in zip(made.bands, blocks, strict=True):
            of = rows[:, band.neurons].expand(made.parts, -1, -1)
            by_part[:, :, band.places].baddbmm_(of, block.transpose(0, 1))
        return result.reshape(*values.shape[:-1], made.parts * made.places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        made = ctx.made
        wide = gradients[0].reshape(-1, made.parts, made.places)
        of_bands = [
            wide[:, :, band.places].flatten(1) @ block.flatten(1).T
            for band, block in zip(made.bands, ctx.blocks, strict=True)
        ]
        return torch.cat(of_bands, 1).reshape(*gradients[0].shape[:-1], made.neurons), None, None


def _parts(shape: tuple[int, ...]) -> list[int]:
    """Into how many parts an input [*shape] may be divided: by its first axes."""
    return sorted({1, *accumulate(shape[:-1], mul)}) if shape else []


def _ends(seen: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """The first place that each neuron sees, and the one after its last: [P]; of what sees nothing,
    all places and 0, which count for nothing among others.
    """
    places = seen.reshape(len(seen), parts, seen.shape[1] // parts).any(1)
    count, some = places.shape[1], places.any(1)
    first = places.to(torch.uint8).argmax(1)
    last = count - places.flip(1).to(torch.uint8).argmax(1)
    return torch.where(some, first, count), torch.where(some, last, 0)
