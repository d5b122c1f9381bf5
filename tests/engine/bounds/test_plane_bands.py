"""Products in bands are those with all slopes, whatever is zero; bands of a convolution are narrow.

Values are small integers where sums are compared, which are then exact in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from runner.engine.bounds import plane_bands
from runner.engine.bounds.plane_bands import BandedSlopes, cut, order_of

Question = tuple[Tensor, tuple[int, ...]]


@pytest.fixture(autouse=True, scope="module")
def bands_cost_nothing() -> Iterator[None]:
    """So that small questions have many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plane_bands, "CALL_COST", 0)
        patch.setattr(plane_bands, "WORTH", 1.0)
        yield


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Slopes [S, P, inputs] and the input's shape: neurons see all, little or nothing, anywhere."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    sets, neurons = draw(st.integers(1, 3)), draw(st.integers(0, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    slopes = torch.randint(-9, 10, (sets, neurons, prod(shape)), generator=generator)
    kept = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
    seen = torch.rand(slopes.shape, generator=generator) < kept
    blind = torch.rand(neurons, 1, generator=generator) < draw(st.sampled_from([0.0, 0.4]))
    return (slopes * seen).masked_fill(blind, 0).double(), shape


def integers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-9, 10, shape, generator=generator).double()


@examples(300)
@given(questions(), st.integers(0, 3), st.integers(0, 9))
def test_a_banded_product_is_the_dense_one(question: Question, rows: int, seed: int) -> None:
    slopes, shape = question
    banded = BandedSlopes.of(slopes, shape)
    values = integers(2, rows, slopes.shape[1], seed=seed)
    assert len(banded) == len(slopes)
    for number, dense in enumerate(slopes):
        assert torch.equal(banded.times(values, number), values @ dense)


@examples(300)
@given(questions(), st.integers(0, 9))
def test_its_gradient_is_the_dense_one(question: Question, seed: int) -> None:
    slopes, shape = question
    banded = BandedSlopes.of(slopes, shape)
    values = integers(2, 3, slopes.shape[1], seed=seed).requires_grad_()
    upward = integers(2, 3, slopes.shape[2], seed=seed + 1)
    for number, dense in enumerate(slopes):
        found = torch.autograd.grad(banded.times(values, number), values, upward)[0]
        assert torch.equal(found, upward @ dense.T)


@examples(300)
@given(questions())
def test_no_slope_is_lost(question: Question) -> None:
    slopes, shape = question
    assert torch.equal(BandedSlopes.of(slopes, shape).dense(), slopes)


@examples(100)
@given(questions())
def test_an_order_has_every_neuron_once(question: Question) -> None:
    slopes, shape = question
    order = order_of(slopes[0], shape)
    assert torch.equal(order.sort().values, torch.arange(slopes.shape[1]))


def test_values_of_a_higher_precision_are_multiplied_in_it() -> None:
    slopes = patches().float()[None]
    values = integers(1, 2, slopes.shape[1]) / 3
    found = BandedSlopes.of(slopes, (2, 16, 16)).times(values, 0)
    assert found.dtype == torch.float64
    assert torch.allclose(found, values @ slopes[0].double(), rtol=1e-14, atol=1e-13)


def test_slopes_without_zeros_are_multiplied_at_once_with_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(3)
    slopes = torch.randn(2, 50, 48, generator=generator)
    values = torch.randn(1, 7, 50, generator=generator)
    banded = BandedSlopes.of(slopes, (3, 4, 4))
    assert banded.cut.whole
    assert torch.equal(banded.times(values, 1), values @ slopes[1])


def patches(channels: int = 2) -> Tensor:
    """Slopes [neurons, inputs] of a convolution over an image [channels, 16, 16], by kernel first:
    each sees 4 by 4 pixels of all channels.
    """
    kernel = integers(3, channels, 4, 4).abs() + 1
    image = torch.eye(channels * 256).double().reshape(-1, channels, 16, 16)
    return torch.nn.functional.conv2d(image, kernel, stride=2).flatten(1).T.contiguous()


@pytest.mark.parametrize("channels_last", [False, True])
def test_bands_of_a_convolution_are_rows_of_the_image(channels_last: bool) -> None:
    slopes, shape = patches(), (2, 16, 16)
    if channels_last:
        slopes = slopes.reshape(-1, *shape).permute(0, 2, 3, 1).flatten(1)
        shape = 16, 16, 2
    sorted_ = slopes[order_of(slopes, shape)]
    made = cut(sorted_ != 0, shape)
    assert made.parts == (1 if channels_last else 2)
    # Each of the 7 rows of neurons sees 4 of 16 rows of pixels.
    assert made.cost == slopes.numel() * 4 // 16
    assert made.cost < cut(slopes != 0, shape).cost


def test_a_band_more_is_made_only_where_it_saves_what_it_costs() -> None:
    slopes, shape = patches(), (2, 16, 16)
    seen = slopes[order_of(slopes, shape)] != 0
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        for cost in (0, 1_200, 10**6):
            patch.setattr(plane_bands, "CALL_COST", cost)
            counts.append(len(cut(seen, shape).bands))
    assert counts[0] > counts[1] > counts[2] == 1


def test_bands_that_save_little_are_not_made() -> None:
    slopes, shape = patches(), (2, 16, 16)
    seen = slopes[order_of(slopes, shape)] != 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plane_bands, "WORTH", 0.2)  # 0.25 of the slopes would be kept.
        assert cut(seen, shape).whole


def test_neurons_of_which_no_bands_are_made_stay_in_their_order() -> None:
    slopes, shape = patches(), (2, 16, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plane_bands, "WORTH", 0.2)
        assert torch.equal(order_of(slopes, shape), torch.arange(len(slopes)))
