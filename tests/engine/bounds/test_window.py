"""A convolution as a product of matrices, as GPUs compute it, is the convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from runner.engine.bounds import window
from runner.engine.bounds.window import Window

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, tuple[int, int], tuple[int, int]]:
    """A window, a kernel, and an image that it fits into."""
    kernel, stride, dilation = draw(SIZES), draw(SIZES), draw(SIZES)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
    rows, columns = (r + draw(st.integers(0, 4)) for r in reach)
    return Window(stride, padding, dilation), kernel, (rows, columns)


@examples(60)
@given(windows(), st.integers(1, 3), st.integers(1, 3))
def test_products_of_matrices_are_the_convolution_and_its_adjoint(
    drawn: tuple[Window, tuple[int, int], tuple[int, int]], inputs: int, outputs: int
) -> None:
    moved, kernel, image = drawn
    generator = torch.Generator().manual_seed(inputs + 7 * outputs)
    x = torch.randn(5, inputs, *image, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, *kernel, generator=generator, dtype=torch.float64)
    after = moved.unfolded(x, weight)
    expected = F.conv2d(x, weight, None, moved.stride, moved.padding, moved.dilation)
    torch.testing.assert_close(after, expected)
    rows = torch.randn(after.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        moved.folded(rows, weight, image), moved.transpose(rows, weight, image)
    )


@pytest.mark.parametrize("kernel", [(1, 1), (2, 3)])
@pytest.mark.parametrize("last", [False, True])
def test_patches_that_do_not_overlap_are_the_adjoint(kernel: tuple[int, int], last: bool) -> None:
    """Whether channels come first or last in memory."""
    moved = Window(kernel, (0, 0), (1, 1))
    image = (3 * kernel[0], 2 * kernel[1])
    weight = torch.randn(4, 2, *kernel, dtype=torch.float64)
    rows = torch.randn(5, 4, 3, 2, dtype=torch.float64)
    rows = rows.to(memory_format=torch.channels_last) if last else rows
    expected = F.conv_transpose2d(rows, weight, None, kernel)
    torch.testing.assert_close(moved.transpose(rows, weight, image), expected)


def test_a_batch_is_unfolded_in_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Window((1, 1), (1, 1), (1, 1))
    x, weight = torch.randn(7, 2, 6, 6), torch.randn(3, 2, 3, 3)
    whole = moved.unfolded(x, weight), moved.folded(torch.ones(7, 3, 6, 6), weight, (6, 6))
    monkeypatch.setattr(window, "UNFOLDED_BYTES", 2 * 2 * 9 * 36 * 4)
    parts = moved.unfolded(x, weight), moved.folded(torch.ones(7, 3, 6, 6), weight, (6, 6))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("image", [(1, 1), (4, 2), (40, 1)])
def test_pixels_of_many_images_are_multiplied_as_one(image: tuple[int, int]) -> None:
    moved = Window((1, 1), (0, 0), (1, 1))
    x = torch.randn(5, 3, *image, dtype=torch.float64)
    weight = torch.randn(4, 3, 1, 1, dtype=torch.float64)
    found = moved.apply(x, weight)
    assert found.is_contiguous()
    torch.testing.assert_close(found, F.conv2d(x, weight))
