"""Patches: what an error in an image reaches is a window, and no more of it is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import Builder, SmallNetwork, box_of, points_in
from sound_bounds import by_forms

from runner.contract.vocabulary import Method
from runner.engine.bounds.affine import ConvMap
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.features import WholeFeatures
from runner.engine.bounds.form import Form
from runner.engine.bounds.forward import ForwardPass
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.patches import Patches, convolution
from runner.engine.bounds.propagate import Propagator
from runner.engine.network.graph import Op

CONVOLUTIONS = [
    {"kernel": (3, 3), "padding": (1, 1)},
    {"kernel": (3, 3), "padding": (1, 1), "stride": (2, 2)},
    {"kernel": (4, 3), "padding": (0, 1), "stride": (2, 3)},
    {"kernel": (2, 2), "dilation": (2, 3), "stride": (1, 2)},
    {"kernel": (1, 1), "stride": (3, 3)},
    {"kernel": (3, 3), "padding": (2, 2), "groups": 2},
]


def conv_of(options: dict[str, object]) -> ConvMap:
    """From an image of 11 by 9."""
    builder = Builder((4, 11, 9), seed=2)
    name = builder.conv("x", 6, **options)  # type: ignore[arg-type]
    conv = convolution(builder.network().bound().linear[name])
    assert conv is not None
    return conv


def patches_of(size: tuple[int, int], image: tuple[int, int] = (11, 9)) -> Patches:
    """At places of all kinds, some of them beyond the border."""
    generator = torch.Generator().manual_seed(3)
    top, left = (
        torch.randint(1 - side, length, (300,), generator=generator)
        for side, length in zip(size, image, strict=True)
    )
    patches = Patches(torch.randn((300, 4, *size), generator=generator), top, left, image)
    # What lies beyond the border is nothing.
    rows = top[:, None] + torch.arange(size[0])
    columns = left[:, None] + torch.arange(size[1])
    within = ((rows >= 0) & (rows < image[0]))[:, :, None]
    within = within & ((columns >= 0) & (columns < image[1]))[:, None, :]
    return replace(patches, values=patches.values * within.unsqueeze(1))


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (9, 8)])
def test_a_convolution_of_patches_is_that_of_the_whole_columns(
    options: dict[str, object], size: tuple[int, int]
) -> None:
    conv, patches = conv_of(options), patches_of(size)
    found, expected = patches.through(conv), conv.apply(patches.whole())
    torch.testing.assert_close(found.whole(), expected)
    assert found.values[0].numel() == patches.values_after(conv) <= expected[0].numel()


def test_patches_reach_as_far_as_their_whole_columns() -> None:
    for size in ((1, 1), (3, 2), (11, 9)):
        patches = patches_of(size)
        torch.testing.assert_close(patches.reach(), patches.whole().abs().sum(0))


def test_slopes_and_masks_are_those_of_the_places_that_a_patch_covers() -> None:
    patches, slopes = patches_of((3, 3)), torch.rand(4, 11, 9)
    torch.testing.assert_close(patches.scaled(slopes).whole(), patches.whole() * slopes)
    masked = patches.masked(slopes > 0.5).whole()
    torch.testing.assert_close(masked, patches.whole() * (slopes <= 0.5))


def test_a_patch_stands_for_the_error_of_one_neuron() -> None:
    neurons, sizes = torch.tensor([5, 98, 250]), torch.tensor([1.0, 2.0, 3.0])
    whole = Patches.of_neurons(neurons, sizes, (4, 11, 9), WholeFeatures()).whole().flatten(1)
    assert whole.nonzero().tolist() == [[0, 5], [1, 98], [2, 250]]
    assert whole.sum(1).tolist() == [1.0, 2.0, 3.0]


def test_patches_that_there_is_no_room_for_are_errors_again() -> None:
    conv = conv_of({"kernel": (3, 3), "padding": (1, 1)})
    box = Interval(-torch.rand(1, 4, 11, 9), torch.rand(1, 4, 11, 9))
    form = Form.of(box).with_patches(conv, 10_000_000, WholeFeatures())
    assert form.count > 300
    fewer = form.limited(conv, form.count // 2 * Patches.values_of_one(conv))
    assert fewer.count == form.count // 2
    for found in (fewer, form.without_patches(), form.with_whole(20, 0)):
        torch.testing.assert_close(found.interval.lower, form.interval.lower, atol=1e-3, rtol=0)
        assert (found.interval.lower <= box.lower).all()


def deep() -> SmallNetwork:
    """Six inputs that every place of an image depends on, and four convolutions."""
    builder = Builder((6,), seed=4)
    x = builder.reshape(builder.linear("x", 2 * 12 * 12), 2, 12, 12)
    for channels, stride in ((4, 1), (4, 2), (6, 1), (6, 2)):
        conv = builder.conv(x, channels, stride=(stride, stride), padding=(1, 1))
        x = builder.pointwise(Op.RELU, conv)
    return builder.network(builder.linear(builder.flatten(x), 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forms_with_patches_hold_and_are_as_tight_as_with_a_column_for_each(
    dtype: torch.dtype,
) -> None:
    network = deep()
    box = first_of(box_of(network, 0.1)).to(dtype)
    points = points_in(box.to(torch.float64), 100).flatten(0, 1)
    values = network.values(points)
    patched = by_forms(network, box, 6, patches=True)
    whole, inputs = by_forms(network, box, 5000), by_forms(network, box, 6)
    for name, interval in patched.items():
        assert (interval.lower <= values[name] + 1e-9).all(), name
        assert (interval.upper >= values[name] - 1e-9).all(), name
    last = [node.name for node in network.graph.nodes if node.op is Op.CONV][-1]
    width = {
        kind: float((found[last].upper - found[last].lower).sum())
        for kind, found in (("patched", patched), ("whole", whole), ("inputs", inputs))
    }
    assert width["patched"] < 0.8 * width["inputs"]
    assert width["patched"] == pytest.approx(width["whole"], rel=0.02)


def first_of(box: Interval) -> Interval:
    return Interval(box.lower[:1], box.upper[:1])


def test_patches_stay_within_the_budget() -> None:
    network = deep()
    box = first_of(box_of(network, 0.1))
    budget = Budget(64 * 1024)
    forward = ForwardPass(network.bound(), box, torch.inf, budget=budget)
    bounds = Propagator(network.bound(), Settings(Method.IBP)).bound(box).intervals
    for node in network.graph.nodes:
        if node.op is Op.CONV:
            forward.columns(node.name, 1, torch.float32)
            forward.interval(node.name, bounds, 6)
            (form,) = forward._forms.values()
            assert sum(patches.values.nbytes for patches in form.patches) <= budget.bytes
