"""Confined bounds: whatever the multipliers are, they hold at all points of a sub-domain that are
unsafe; and constraints of every kind bring them nearer.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import SmallNetwork, mlp, points_in
from test_beta import NETWORKS, Root
from torch import Tensor

from runner.engine.bounds.beta import BetaSettings
from runner.engine.bounds.confined import ConfinedBounds, Questions
from runner.engine.bounds.subdomains import Subdomains
from runner.engine.bounds.tagging import NoTagger

POINTS = 4000


class Asking:
    """Of random sub-domains of one box, each neuron of a node and its negative."""

    def __init__(
        self, network: SmallNetwork, splits: int, seed: int, dtype: torch.dtype = torch.float64
    ) -> None:
        self.root = Root(network, dtype=dtype)
        bounds, space = self.root.bounds, self.root.space
        self.bounds = ConfinedBounds(
            bounds._network, space, bounds.intervals, bounds.scale, NoTagger(), lambda: None
        )
        self.dtype, self.splits, self.seed = dtype, splits, seed

    def questions(self, number: int, depth: float, domains: int = 5) -> tuple[Questions, Tensor]:
        """Of node `number`; where both rows are at most so deep between their least and greatest
        values there; and which points [B, P] those are.
        """
        node = self.root.space.nodes[number]
        drawn = self.root.split(domains, self.splits, self.seed)
        drawn = replace(drawn, rows=drawn.rows.float().double())  # The same in any precision.
        values, inside = self.values(drawn)
        unsafe = torch.ones_like(inside)
        limits = torch.zeros((2, domains), dtype=torch.float64)
        for domain in range(domains):
            mine = values[:, inside[:, domain]] if inside[:, domain].any() else values
            least, most = mine.amin(1), mine.amax(1)
            limits[:, domain] = least + depth * (most - least)
            unsafe[:, domain] = (values <= limits[:, domain, None]).all(0)
        count = node.stop - node.start
        twice = torch.arange(domains).repeat_interleave(2 * count)
        wide: Subdomains = drawn.select(twice).to(self.dtype)
        questions = Questions(
            rows=wide.rows,
            phases=wide.phases,
            before=wide.before,
            multipliers=wide.multipliers[:1, :, :0],
            node=node,
            columns=torch.arange(count).repeat(2).repeat(domains),
            signs=torch.tensor([1, -1]).repeat_interleave(count).repeat(domains),
            limits=limits[:, twice],
            units=torch.ones(len(twice), dtype=self.dtype),
        )
        return self.bounds.asked(questions), (inside & unsafe).T[twice]

    @property
    def reached(self) -> dict[str, Tensor]:
        """Values of all nodes at points of the box."""
        points = points_in(self.root.intervals["x"].to(torch.float64), POINTS)[:, 0]
        return self.root.network.values(points)

    def values(self, domains: Subdomains) -> tuple[Tensor, Tensor]:
        """Of points: rows' values [K, P], and in which sub-domains they lie [P, B]."""
        reached = self.reached
        inputs = self.root.space.columns_of(reached)
        inside = ((inputs[:, None] * domains.phases) >= 0).all(2)
        outputs = reached[self.root.network.graph.output].flatten(1)
        return torch.einsum("ko,po->kp", domains.rows[:, 0], outputs), inside

    def least(self, questions: Questions, there: Tensor) -> Tensor:
        """What is asked is at least [B] at points that are meant [B, P]; inf where none is."""
        values = self.reached[questions.node.before].flatten(1)
        asked = values[:, questions.node.neurons[questions.columns]] * questions.signs
        return torch.where(there.T, asked, torch.inf).amin(0)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@examples(30)
@given(
    st.integers(0, 2**16),
    st.integers(0, 4),
    st.sampled_from([0.02, 0.3, 1.0]),
    st.sampled_from([0.0, 0.1, 1.0, 1e4]),
)
def test_bounds_hold_where_a_sub_domain_is_unsafe_whatever_multipliers_are(
    name: str, dtype: torch.dtype, seed: int, splits: int, depth: float, weight: float
) -> None:
    asking = Asking(NETWORKS[name](), splits, seed, dtype)
    for number in range(len(asking.root.space.nodes)):
        questions, there = asking.questions(number, depth)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(questions.multipliers.shape, generator=generator).to(dtype)
        free = asking.bounds.lasting(questions)
        free[:, -2:] = False  # Weights, as β, may be of any size.
        multipliers = torch.where(free, drawn, drawn * weight)
        found = asking.bounds.bound(replace(questions, multipliers=multipliers), proven=True)[0]
        assert (found.double() <= asking.least(questions, there)).all()


def widths(asking: Asking, questions: Questions) -> Tensor:
    """[domains, neurons], after some iterations; 0 where a sub-domain is empty."""
    goal = torch.full((1, len(questions)), torch.inf)
    found, _ = asking.bounds.optimized(questions, goal, BetaSettings(iterations=30))
    count = questions.node.stop - questions.node.start
    return (-found.reshape(-1, 2, count).sum(1)).clamp(min=0)


def test_unsafe_rows_and_splits_of_any_layer_bring_bounds_nearer() -> None:
    """Those of the neurons' own layer and of later ones as well as of earlier ones."""
    asking = Asking(mlp(5, 12, 10, 3, seed=1), splits=3, seed=2)
    first, last = asking.root.space.nodes[0], asking.root.space.nodes[-1]
    for number, node in ((0, first), (-1, last)):
        questions, _ = asking.questions(number, 0.05)
        nothing = replace(questions, limits=torch.full_like(questions.limits, 1e9))
        plain = widths(asking, nothing)
        assert widths(asking, questions).sum() < 0.95 * plain.sum()
        where = questions.phases.clone()
        where[:, first.start : first.stop] = 0
        unsplit = replace(nothing, phases=torch.zeros_like(questions.phases))
        later = replace(nothing, phases=where)
        split = (where[:: 2 * (node.stop - node.start)] != 0).any(1)
        assert split.any()
        gains = widths(asking, unsplit)[split].sum() - widths(asking, later)[split].sum()
        assert gains > 0.001 * plain.sum()


def test_what_lasts_of_multipliers_is_no_beta() -> None:
    asking = Asking(mlp(5, 12, 10, 3, seed=1), splits=3, seed=0)
    questions, _ = asking.questions(1, 0.1)
    lasting = asking.bounds.lasting(questions)
    assert lasting.shape == questions.multipliers[0].shape
    assert torch.equal(lasting[:, :-2], questions.phases == 0)
    assert lasting[:, -2:].all()
    assert not questions.multipliers[0][~lasting].any()
