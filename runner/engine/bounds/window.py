"""Convolutions as plain sums of products, on any device.

A CPU's own convolutions are such sums. cuDNN's are not always (Winograd, FFT), and torch's own on
a GPU go through a batch one by one, 24 to 145 times slower (docs/benchmarks.md, *On a GPU*): there
a convolution is unfolded into one product of matrices, which holds each value once for every place
of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.engine.network.graph import Node

# What is unfolded at once, of a batch of any size.
UNFOLDED_BYTES = 256 * 1024 * 1024
# Pixels of an image that are few to torch's products in float64.
SMALL_IMAGE = 32


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image, each of two sizes: rows, columns.

    `padding`: zeros on either side. `groups`: of channels that meet no other.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int = 1

    @staticmethod
    def of(node: Node) -> Window:
        """Of a convolution."""
        stride, padding, dilation = (
            (int(sizes[0]), int(sizes[1]))  # type: ignore[index]
            for sizes in map(node.attributes.__getitem__, ("stride", "padding", "dilation"))
        )
        return Window(stride, padding, dilation, int(node.attributes["groups"]))  # type: ignore[arg-type]

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [N, in, *image], weight [out, in / groups, *kernel] -> [N, out, *image after]."""
        if x.is_cuda and self.groups == 1:
            return self.unfolded(x, weight)
        if self._is_of_pixels(x, weight):
            return _of_pixels(x, weight)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, rows: Tensor, weight: Tensor, image: tuple[int, ...]) -> Tensor:
        """The adjoint: rows [N, out, *image after] -> [N, in, *image]."""
        if rows.is_cuda and self.groups == 1:
            return self.folded(rows, weight, image)
        reached = self._unreached(rows, weight, image)
        # A kernel of one pixel has no need of it, unless rows are [N, *image, channels] in memory.
        of_one = weight.shape[2:].numel() == 1
        if self._is_of_patches(weight, reached) and not (of_one and rows.is_contiguous()):
            return _patched(rows, weight)
        return F.conv_transpose2d(
            rows, weight, None, self.stride, self.padding, reached, self.groups, self.dilation
        )

    def _is_of_pixels(self, x: Tensor, weight: Tensor) -> bool:
        """Whether each pixel of many small images is multiplied by itself, in float64: torch goes
        through those image by image.
        """
        alone = weight.shape[2:].numel() == 1 and self.groups == 1
        plain = self.stride == (1, 1) and self.padding == (0, 0)
        small = len(x) > 1 and x.shape[2:].numel() <= SMALL_IMAGE
        return alone and plain and small and x.dtype is torch.float64

    def _is_of_patches(self, weight: Tensor, unreached: list[int]) -> bool:
        """Whether each patch of the image becomes a pixel by itself, and nothing is left over."""
        size = tuple(weight.shape[2:])
        dense = self.dilation == (1, 1) or size == (1, 1)
        whole = self.padding == (0, 0) and unreached == [0, 0] and self.groups == 1
        return whole and dense and self.stride == size

    def unfolded(self, x: Tensor, weight: Tensor) -> Tensor:
        """`apply` as a product of matrices."""
        matrix = weight.flatten(1)

        def product(some: Tensor) -> Tensor:
            patches = self._patches(some, weight.shape[2:])
            flat = torch.matmul(matrix, patches.flatten(4).flatten(1, 3))
            return flat.reshape(*flat.shape[:2], *patches.shape[4:])

        return _in_parts(x, matrix.shape[1] * prod(x.shape[2:]), product)

    def folded(self, rows: Tensor, weight: Tensor, image: tuple[int, ...]) -> Tensor:
        """`transpose` as a product of matrices."""
        matrix, kernel = weight.flatten(1).T, tuple(weight.shape[2:])

        def product(some: Tensor) -> Tensor:
            columns = torch.matmul(matrix, some.flatten(2))
            return F.fold(columns, image, kernel, self.dilation, self.padding, self.stride)

        return _in_parts(rows, matrix.shape[0] * prod(rows.shape[2:]), product)

    def _patches(self, x: Tensor, kernel: torch.Size) -> Tensor:
        """[N, in, *image] -> [N, in, *kernel, *image after], a view of the padded image."""
        (above, left), (down, right) = self.padding, self.dilation
        padded = F.pad(x, (left, left, above, above))
        reach = [(size - 1) * step + 1 for size, step in zip(kernel, self.dilation, strict=True)]
        moved = padded.unfold(2, reach[0], self.stride[0]).unfold(3, reach[1], self.stride[1])
        return moved[..., ::down, ::right].permute(0, 1, 4, 5, 2, 3)

    def _unreached(self, rows: Tensor, weight: Tensor, image: tuple[int, ...]) -> list[int]:
        """Rows and columns of the image that the strided convolution does not reach."""
        return [
            image[axis]
            - (
                (rows.shape[2 + axis] - 1) * self.stride[axis]
                - 2 * self.padding[axis]
                + self.dilation[axis] * (weight.shape[2 + axis] - 1)
                + 1
            )
            for axis in (0, 1)
        ]


def _of_pixels(x: Tensor, weight: Tensor) -> Tensor:
    """A kernel of one pixel on x [N, in, *image], as one product for all."""
    pixels = x.movedim(1, 3)
    found = pixels.reshape(-1, x.shape[1]) @ weight.flatten(1).T
    return found.reshape(*pixels.shape[:3], len(weight)).movedim(3, 1).contiguous()


def _patched(rows: Tensor, weight: Tensor) -> Tensor:
    """Each pixel of rows [N, out, *image after] times the weight is a patch of the image."""
    patches = rows.flatten(2).mT @ weight.flatten(1)
    size, after = weight.shape[1:], rows.shape[2:]
    placed = patches.unflatten(2, size).unflatten(1, after).permute(0, 3, 1, 4, 2, 5)
    image: Tensor = placed.reshape(len(rows), size[0], after[0] * size[1], after[1] * size[2])
    return image


def _in_parts(x: Tensor, values: int, product: Callable[[Tensor], Tensor]) -> Tensor:
    """`product` of some of x [N, ...] at once, whose unfolding has `values` values for each."""
    count = max(1, UNFOLDED_BYTES // (values * x.itemsize))
    if count >= len(x):
        return product(x)
    parts = (product(part) for part in x.split(count))
    first = next(parts)
    result = first.new_empty((len(x), *first.shape[1:]))
    result[:count] = first
    for number, part in enumerate(parts, 1):
        result[number * count : number * count + len(part)] = part
    return result
