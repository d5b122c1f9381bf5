"""Clips: what they say of neurons holds in the half space, comes to what is there to gain, and is
of few neurons.
"""

from __future__ import annotations

import pytest
import torch
from examples import examples, seeds
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from small_networks import Builder, SmallNetwork, box_of, cnn, mlp, points_in
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds import clips
from runner.engine.bounds.clips import Forms, HalfSpaces
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.split import SplitSpace
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op

ROOM = 10**9
ALL = 10**6


class Root:
    """Of one network over one box, and half spaces of random directions."""

    def __init__(
        self,
        network: SmallNetwork,
        radius: float = 0.5,
        dtype: torch.dtype = torch.float64,
        most_bytes: int = ROOM,
    ) -> None:
        self.network = network
        bound = network.bound()
        self.box = box_of(network, radius).to(dtype)
        self.intervals = Propagator(bound, Settings(Method.CROWN)).bound(self.box).intervals
        self.space = SplitSpace.of(bound, self.intervals)
        self.forms = Forms(bound, self.space, self.intervals, NoTagger(), lambda: None, most_bytes)
        lower = self.space.columns_of({n: i.lower for n, i in self.intervals.items()})
        upper = self.space.columns_of({n: i.upper for n, i in self.intervals.items()})
        self.before = Interval(lower, upper)
        self.scores = torch.ones_like(lower)

    def half_spaces(self, share: float, count: int = 6, seed: int = 0) -> HalfSpaces:
        """Of which each leaves so much of what its direction spans."""
        generator = torch.Generator().manual_seed(seed)
        inputs = self.box.lower[0].numel()
        slopes = torch.randn(count, inputs, generator=generator).to(self.box.lower)
        lower, upper = self.box.lower.flatten(), self.box.upper.flatten()
        least = torch.where(slopes > 0, slopes * lower, slopes * upper).double().sum(1)
        most = torch.where(slopes > 0, slopes * upper, slopes * lower).double().sum(1)
        return HalfSpaces(slopes, least + share * (most - least))

    def clipped(self, spaces: HalfSpaces, most: int = ALL) -> Interval:
        count = len(spaces.limits)
        before = Interval(*(e.expand(count, -1) for e in (self.before.lower, self.before.upper)))
        return self.forms.clipped(spaces, before, self.scores.expand(count, -1), most)


def behind_convolutions() -> SmallNetwork:
    builder = Builder((2, 8, 8), seed=3)
    x = builder.pointwise(Op.RELU, builder.conv("x", 3, padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.conv(x, 3, padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.linear(builder.flatten(x), 8))
    return builder.network(builder.linear(x, 3))


NETWORKS = {
    "mlp": lambda: mlp(6, 14, 12, 3, seed=1),
    "residual": lambda: cnn(size=5),
    "windows": behind_convolutions,
}


def within(root: Root, spaces: HalfSpaces, count: int = 4000) -> list[Tensor]:
    """Of each half space, inputs of the unstable neurons at points of it [n, N]: of the box, drawn
    to where it is.
    """
    points = points_in(root.box.to(torch.float64), count)[:, 0]
    found = []
    for slope, limit in zip(spaces.slopes.double(), spaces.limits, strict=True):
        shape = root.box.lower[0].shape
        least = torch.where(slope.reshape(shape) > 0, root.box.lower[0], root.box.upper[0])
        pull = torch.linspace(0, 1, count, dtype=torch.float64).reshape(-1, *(1,) * len(shape))
        x = points + pull * (least - points)
        x = x[(x.flatten(1) @ slope) <= limit]
        found.append(root.space.columns_of(root.network.values(x)))
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
def test_clipped_bounds_hold_in_the_half_space_and_are_never_looser(
    name: str, dtype: torch.dtype, share: float
) -> None:
    root = Root(NETWORKS[name](), dtype=dtype)
    spaces = root.half_spaces(share)
    found = root.clipped(spaces)
    assert (found.lower >= root.before.lower).all()
    assert (found.upper <= root.before.upper).all()
    for index, inputs in enumerate(within(root, spaces)):
        assert len(inputs)
        assert (inputs >= found.lower[index] - 1e-12).all()
        assert (inputs <= found.upper[index] + 1e-12).all()


@examples(40)
@given(
    st.integers(0, 2**16),
    st.lists(st.integers(1, 9), min_size=2, max_size=3),
    st.floats(0.001, 1.0),
    st.sampled_from([0.01, 0.3, 3.0]),
)
def test_of_random_networks_clipped_bounds_hold(
    seed: int, hidden: list[int], share: float, radius: float
) -> None:
    root = Root(mlp(3, *hidden, 2, seed=seed), radius, dtype=torch.float32)
    spaces = root.half_spaces(share, count=3, seed=seed)
    found = root.clipped(spaces)
    for index, inputs in enumerate(within(root, spaces, count=500)):
        slack = 1e-12 * (1 + inputs.abs().max()) if inputs.numel() else 0.0
        assert (inputs >= found.lower[index] - slack).all()
        assert (inputs <= found.upper[index] + slack).all()


def forms_at(root: Root) -> tuple[Tensor, Tensor]:
    """Coefficients [2, U, inputs] and constants [2, U] of the last node's forms, as they are."""
    (*_, forms) = root.forms.nodes[:1]
    values = forms.values / root.forms.radius
    return values, forms.centre - values.double() @ root.forms.middle.double()


@pytest.mark.parametrize("seed", seeds(0, 4))
@pytest.mark.parametrize("share", [0.03, 0.3])
def test_a_clip_is_nearly_what_a_linear_program_finds_and_never_above(
    seed: int, share: float
) -> None:
    root = Root(mlp(20, 14, 12, 3, seed=seed))
    spaces = root.half_spaces(share, count=2, seed=seed)
    found = root.clipped(spaces)
    rows, constants = forms_at(root)
    columns = root.forms.nodes[0].columns
    sides = torch.stack((root.box.lower.flatten(), root.box.upper.flatten()), 1).tolist()
    gained = there = 0.0
    for index in range(2):
        for neuron in range(rows.shape[1]):
            for side, ends in ((0, found.lower), (1, -found.upper)):
                before = (root.before.lower, -root.before.upper)[side][0, columns][neuron]
                best = linprog(
                    rows[side, neuron].numpy(),
                    spaces.slopes[index : index + 1].numpy(),
                    spaces.limits[index : index + 1].numpy(),
                    bounds=sides,
                )
                least = max(float(before), best.fun + float(constants[side, neuron]))
                reached = float(ends[index, columns][neuron])
                assert reached <= least + 1e-7
                gained, there = gained + reached - float(before), there + least - float(before)
    assert there > 0.1
    assert gained > 0.85 * there


def test_neurons_that_see_few_inputs_have_the_same_bounds_from_those_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Root(behind_convolutions())
    assert any(forms.at is not None for forms in root.forms.nodes)
    spaces = root.half_spaces(0.1)
    few = root.clipped(spaces)
    monkeypatch.setattr(clips, "SPARSE", 0.0)
    whole = Root(behind_convolutions())
    assert all(forms.at is None for forms in whole.forms.nodes)
    many = whole.clipped(spaces)
    # Tangents at 0 are others where rows are zero, so the greatest value is come near otherwise.
    gained = [
        float((found.lower - root.before.lower + root.before.upper - found.upper).sum())
        for found in (few, many)
    ]
    assert gained[0] == pytest.approx(gained[1], rel=0.1)
    assert gained[0] > 0.1


def test_a_half_space_around_the_box_changes_nothing() -> None:
    root = Root(mlp(6, 14, 12, 3, seed=1))
    found = root.clipped(root.half_spaces(1.5))
    assert torch.allclose(found.lower, root.before.lower.expand_as(found.lower))
    assert torch.allclose(found.upper, root.before.upper.expand_as(found.upper))


def test_only_the_neurons_that_promise_most_are_looked_at() -> None:
    root = Root(mlp(6, 14, 12, 10, 3, seed=1))
    found = root.clipped(root.half_spaces(0.05), most=3)
    changed = (found.lower > root.before.lower) | (found.upper < root.before.upper)
    assert (changed.sum(1) <= 3).all()
    assert changed.any()


def test_forms_that_find_no_room_are_those_of_the_first_layers() -> None:
    network = mlp(6, 14, 12, 10, 3, seed=1)
    last = max(len(n.neurons) for n in Root(network).space.nodes[-1:])
    root = Root(network, most_bytes=2 * last * 6 * 8)
    assert [forms.node for forms in root.forms.nodes] == [root.space.nodes[-1]]
    assert not Root(network, most_bytes=0).forms
