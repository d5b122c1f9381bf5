"""Bounds of sub-domains where anything is split: they hold at every point of the sub-domain, with
any multipliers; cuts part a neuron's values; and what is charged proves them in real arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from questions import bounded, case, question, region
from small_networks import Builder, SmallNetwork, attention, points_in
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds.bent import BentBounds
from runner.engine.bounds.bent_space import BentSpace
from runner.engine.bounds.beta import BetaSettings
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.pull import Pull
from runner.engine.bounds.subdomains import Subdomains
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op

RADIUS = 0.7


def network_of(seed: int) -> SmallNetwork:
    """Everything that bends, with values that are moved, added and used twice on the way."""
    builder = Builder((3,), seed)
    x = builder.linear("x", 8)
    waves = builder.pointwise(Op.SIN, x)
    both = builder.pointwise(Op.ADD, waves, builder.pointwise(Op.SIGMOID, x))
    pairs = builder.select(both, torch.tensor([[0, 1, 2, 3], [4, 5, 0, 7]]))
    products = builder.add(Op.PRODUCT, (pairs,), (4,))
    bent = builder.pointwise(Op.RELU, builder.linear(products, 5))
    builder.linear(builder.pointwise(Op.TANH, builder.linear(bent, 4)), 2)
    return builder.network()


def made(network: SmallNetwork) -> tuple[BentBounds, Interval]:
    """And limits [1, size] of what can be split, over the whole box."""
    inputs, outputs = network.graph.input.size, network.graph.node(network.graph.output).size
    unsafe = region([[1, *[0] * (outputs - 1)]], [-1e6])
    instance = question(case([-RADIUS] * inputs, [RADIUS] * inputs, unsafe), outputs=outputs)
    found = bounded(network, instance, Method.CROWN).cases[0]
    bound = network.bound()
    if found.known is None:
        raise ValueError("CROWN leaves bounds of every node")
    intervals = found.known.intervals
    space = BentSpace.of(bound, intervals)
    ones = torch.ones(sum(space.slots))
    ends = ({n: getattr(i, end) for n, i in intervals.items()} for end in ("lower", "upper"))
    limits = Interval(*(space.columns_of(end) for end in ends))
    return BentBounds(bound, space, intervals, ones, NoTagger(), lambda: None), limits


def sub_domains(limits: Interval, count: int, seed: int) -> tuple[Interval, Tensor]:
    """Each cut at some neurons, and the signs of the cuts [B, size]."""
    generator = torch.Generator().manual_seed(seed)
    lower, upper = (end.expand(count, -1).clone() for end in (limits.lower, limits.upper))
    signs = torch.randint(-4, 5, lower.shape, generator=generator)
    signs = torch.where(signs.abs() == 1, signs, 0)
    share = 0.2 + 0.6 * torch.rand(lower.shape, generator=generator)
    places = torch.lerp(lower, upper, share)
    cut = Interval(torch.where(signs > 0, places, lower), torch.where(signs < 0, places, upper))
    return cut, signs.to(torch.int8)


def noisy(bounds: BentBounds, cut: Interval, signs: Tensor, seed: int) -> Tensor:
    """Multipliers of one row that nobody has optimised."""
    multipliers = bounds.initial(cut, 1)
    noise = torch.rand(multipliers.shape, generator=torch.Generator().manual_seed(seed))
    split = sum(bounds.space.slots)
    multipliers[..., :-split] = noise[..., :-split]
    multipliers[..., -split:] = torch.where(signs != 0, noise[..., -split:] - 0.5, 0.0)
    return multipliers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [network_of, lambda seed: attention(2, 1, 2, seed)])
def test_bounds_hold_at_every_point_of_a_sub_domain(
    kind: Callable[[int], SmallNetwork], dtype: torch.dtype
) -> None:
    checked = 0
    for seed in range(6):
        network = kind(seed)
        bounds, limits = made(network)
        cut, signs = sub_domains(limits, 40, seed)
        outputs = network.graph.node(network.graph.output).size
        rows = torch.randn((1, 40, outputs), generator=torch.Generator().manual_seed(seed))
        domains = Subdomains(rows, signs, cut, noisy(bounds, cut, signs, seed)).to(dtype)
        found = bounds.to(dtype).bound(domains, proven=True)[0].double()
        ends = torch.full((1, *network.graph.input.shape), RADIUS, dtype=torch.float64)
        x = points_in(Interval(-ends, ends), 4000, seed)[:, 0]
        values = network.values(x)
        inside = bounds.space.columns_of(values)
        y = values[network.graph.output] @ rows[0].double().T
        for domain in range(40):
            within = (inside >= cut.lower[domain]) & (inside <= cut.upper[domain])
            some = within.all(1)
            checked += int(some.sum())
            assert bool((y[some, domain] >= found[domain] - 1e-12).all())
    assert checked > 1000


def test_limits_are_followed_to_the_outputs() -> None:
    """Where all that is split first is known to be what it is at one point."""
    for seed in range(4):
        network = attention(2, 1, 2, seed)
        bounds, limits = made(network)
        x = torch.zeros(1, *network.graph.input.shape, dtype=torch.float64)
        at = bounds.space.columns_of(network.values(x)).to(limits.lower)
        ends = at - 1e-5, at + 1e-5
        cut = Interval(torch.maximum(ends[0], limits.lower), torch.minimum(ends[1], limits.upper))
        row = torch.tensor([[[1.0, -1.0, 0.5]]])
        signs = torch.zeros(cut.lower.shape, dtype=torch.int8)
        domains = Subdomains(row, signs, cut, bounds.initial(cut, 1))
        whole = Subdomains(row, signs, limits, bounds.initial(limits, 1))
        value = network.outputs(x)[0] @ row[0, 0].double()
        reach = bounds.bound(domains), bounds.bound(whole)
        # The input itself goes on to the outputs, too, and is not limited.
        assert float(value - reach[0]) < 0.8 * float(value - reach[1])


def test_a_cut_of_one_sub_domain_leaves_the_others_as_they_are() -> None:
    network = attention(3, 2, 2, 0)
    bounds, limits = made(network)
    cut, signs = sub_domains(limits, 6, 0)
    rows = torch.randn((1, 6, 3), generator=torch.Generator().manual_seed(0))
    domains = Subdomains(rows, signs, cut, noisy(bounds, cut, signs, 0))
    together = bounds.bound(domains)
    for index in range(6):
        alone = bounds.bound(domains.select(torch.tensor([index])))
        torch.testing.assert_close(alone[:, 0], together[:, index])


def test_the_ascent_gains_and_is_no_better_than_a_sample() -> None:
    gains = []
    for seed in range(4):
        network = network_of(seed)
        bounds, limits = made(network)
        rows = torch.tensor([[[1.0, 0.0]]])
        phases = torch.zeros(limits.lower.shape, dtype=torch.int8)
        domains = Subdomains(rows, phases, limits, bounds.initial(limits, 1))
        first = bounds.bound(domains)
        goal = torch.full((1, 1), torch.inf)
        best, found = bounds.optimized(domains, goal, BetaSettings(iterations=20))
        again = Subdomains(rows, phases, limits, found)
        torch.testing.assert_close(bounds.bound(again), best)
        box = Interval(torch.full((1, 3), -RADIUS), torch.full((1, 3), RADIUS))
        least = network.outputs(points_in(box, 4000)[:, 0])[:, 0].min()
        assert float(best) <= float(least)
        gains.append(float(best - first))
    assert min(gains) >= 0
    assert max(gains) > 0.01


@pytest.mark.parametrize("many", [True, False])
def test_parameters_of_products_of_matrices_and_softmaxes_may_stay(many: bool) -> None:
    network = attention(3, 2, 2, 0)
    bounds, limits = made(network)
    rows = torch.tensor([[[1.0, -1.0, 0.5], [-1.0, 0.0, 1.0]]])
    lower, upper = (end.expand(2, -1) for end in limits.ends)
    whole, phases = Interval(lower, upper), torch.zeros(lower.shape, dtype=torch.int8)
    first = bounds.initial(whole, 1)
    domains = Subdomains(rows, phases, whole, first)
    settings = BetaSettings(iterations=20, many=many)
    best, found = bounds.optimized(domains, torch.full((1, 2), torch.inf), settings)
    again = Subdomains(rows, phases, whole, found)
    torch.testing.assert_close(bounds.bound(again), best)
    relaxed = [node for node in network.graph.nodes if node.name in network.bound().relaxed]
    parts = zip(*(x.split(bounds.slots, 2) for x in (first, found)), strict=True)
    for node, (before, after) in zip(relaxed, parts, strict=False):
        of_many = node.op in (Op.MATMUL, Op.EXP_SUMS)
        assert torch.equal(before, after) == (of_many and not many), node.name
    assert bool((best > bounds.bound(domains)).any())


def test_limits_alone_are_worth_something() -> None:
    """x <= 1 of a neuron that the lines behind it only know to be at most 3."""
    rows = torch.tensor([[[-1.0, 5.0]]], dtype=torch.float64)
    pull = Pull(
        torch.tensor([0]),
        torch.tensor([[0.0]], dtype=torch.float64),
        torch.tensor([[1.0]], dtype=torch.float64),
        torch.tensor([[[-1.0]]], dtype=torch.float64),
    )
    found, constant = pull(rows)
    assert found.tolist() == [[[0.0, 5.0]]]
    assert float(constant) == pytest.approx(-1.0)
    assert float(constant) < -1.0


def test_its_gradient_is_that_of_the_bound_away_from_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    at = torch.tensor([1, 3])
    lower = -torch.rand((2, 2), generator=generator).double()
    b = (torch.randn((3, 2, 2), generator=generator).double()).requires_grad_()
    rows = torch.randn((3, 2, 4), generator=generator).double().requires_grad_()

    def pulled(rows: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return Pull(at, lower, lower + 1, b)(rows)

    assert torch.autograd.gradcheck(pulled, (rows, b))


def test_cuts_part_a_neuron_where_it_bends() -> None:
    bounds, limits = made(network_of(0))
    cuts = bounds.space.cuts(limits)
    splittable = bounds.space.splittable(limits)
    assert bool(splittable.any())
    assert bool(((limits.lower < cuts) & (cuts < limits.upper))[splittable].all())
    relus = [node for node in bounds.space.nodes if node.relu]
    assert relus
    for node in relus:
        assert not bool(cuts[:, node.start : node.stop].any())
