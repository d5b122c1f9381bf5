"""What a split promises: of the values where a bound is attained, and against children's bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from small_networks import SmallNetwork, box_of, cnn, mlp, specs_of
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds.beta import SplitBounds
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.split import SplitSpace
from runner.engine.bounds.subdomains import Subdomains
from runner.engine.bounds.tagging import NoTagger
from runner.engine.search.branching import NOTHING, Inspected, most_promising

NETWORKS: dict[str, Callable[[], SmallNetwork]] = {
    "mlp": lambda: mlp(5, 12, 10, 3, seed=1),
    "cnn": lambda: cnn(size=6),
}
ONE_LAYER: dict[str, Callable[[], SmallNetwork]] = {
    "many neurons": lambda: mlp(3, 80, 2, seed=5),
    "few neurons": lambda: mlp(4, 20, 2, seed=5),
}


def bounds_of(name: str) -> tuple[SplitBounds, Subdomains]:
    """Bounds of a small network, and its whole box with one row and random slopes."""
    network = {**NETWORKS, **ONE_LAYER}[name]()
    bound, box = network.bound(), box_of(network, 0.5).to(torch.float64)
    intervals = Propagator(bound, Settings(Method.CROWN)).bound(box).intervals
    space = SplitSpace.of(bound, intervals)
    scale = torch.rand(space.size, generator=seeded(1), dtype=torch.float64) + 0.5
    bounds = SplitBounds(bound, space, intervals, scale, NoTagger(), lambda: None)
    before = Interval(
        space.columns_of({n: i.lower for n, i in intervals.items()}),
        space.columns_of({n: i.upper for n, i in intervals.items()}),
    )
    rows = specs_of(network, 1)[:1].double()[:, None]
    slopes = torch.rand((1, 1, space.size), generator=seeded(2), dtype=torch.float64)
    phases = torch.zeros((1, space.size), dtype=torch.int8)
    return bounds, Subdomains(rows, phases, before, slopes)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def split_anyhow(domains: Subdomains) -> Subdomains:
    """With about every third neuron split, to either side, and some β."""
    size = domains.phases.shape[1]
    phases = torch.randint(-1, 2, (1, size), generator=seeded(3)).to(torch.int8)
    phases *= torch.rand((1, size), generator=seeded(4)) < 0.5
    before = Interval(
        torch.where(phases > 0, 0.0, domains.before.lower),
        torch.where(phases < 0, 0.0, domains.before.upper),
    )
    return replace(domains, phases=phases, before=before)


def inspected(bounds: SplitBounds, domains: Subdomains, missed: float) -> Inspected:
    seen = bounds.inspect(domains)
    return Inspected(bounds, domains, seen, seen.bounds + missed)


class Children(NamedTuple):
    """Of every neuron [N]: what a bound of its child gains, with the multipliers it begins with,
    and whether it is attained in the same corner of the box.
    """

    gain: Tensor
    same: Tensor


def children_gain(of: Inspected, sign: int) -> Children:
    size = of.domains.phases.shape[1]
    many = of.domains.select(torch.zeros(size, dtype=torch.long))
    seen = of.seen.select(torch.zeros(size, dtype=torch.long))
    all_ = Inspected(of.bounds, many, seen, of.thresholds.expand(-1, size))
    after = of.bounds.inspect(all_.child(torch.arange(size), sign))
    same = (after.inputs * of.seen.inputs >= 0).flatten(2).all(2)[0]
    return Children((after.bounds - of.seen.bounds)[0], same)


def worth(one: Tensor, other: Tensor) -> Tensor:
    """Of gains of two children: their sum; a child that loses counts for nothing."""
    return one.clamp(min=0) + other.clamp(min=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_inputs_where_a_bound_is_attained_are_its_slopes_by_the_multipliers(name: str) -> None:
    bounds, whole = bounds_of(name)
    domains = split_anyhow(whole)
    before, _ = bounds.attained(domains)
    neurons = bounds.inspect(domains).neurons
    step = 1e-7
    size = domains.phases.shape[1]
    many = domains.select(torch.zeros(size, dtype=torch.long))
    moved = replace(many, multipliers=many.multipliers + step * torch.eye(size)[None])
    slopes = (bounds.bound(moved) - bounds.bound(domains)) / step
    phases = domains.phases[0]
    of_beta = -phases * bounds.scale * before[0, 0]
    of_slope = neurons[0, 0].clamp(min=0) * before[0, 0]
    assert (phases != 0).any()
    assert (neurons[0, 0, phases == 0] > 0).any()
    wanted = torch.where(phases == 0, of_slope, of_beta)
    assert torch.allclose(slopes[0], wanted, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_where_a_bound_is_attained_are_on_the_lines_in_use(name: str) -> None:
    bounds, whole = bounds_of(name)
    domains = split_anyhow(whole)
    before, after = (of[0, 0] for of in bounds.attained(domains))
    coefficients = bounds.inspect(domains).neurons[0, 0]
    phases, slope = domains.phases[0], domains.multipliers[0, 0]
    lower, upper = domains.before.lower[0], domains.before.upper[0]
    line = upper * (before - lower) / (upper - lower)
    wanted = torch.where(coefficients > 0, slope * before, line)
    wanted = torch.where(phases > 0, before, torch.where(phases < 0, 0.0, wanted))
    assert torch.allclose(after, wanted)


def test_a_split_keeps_its_promise_where_the_same_corner_stays_the_worst() -> None:
    bounds, domains = bounds_of("many neurons")
    of = inspected(bounds, domains, missed=1e6)
    active, inactive = (children_gain(of, sign) for sign in (1, -1))
    # Where the lower line is in use, β makes up for it, and nothing is promised.
    costs = of.seen.neurons[0, 0] < 0
    sure = costs & active.same & inactive.same
    assert sure.any()
    promised = of.gains()[0]
    assert torch.allclose(worth(active.gain, inactive.gain)[sure], promised[sure])
    assert (promised[~costs] == 0).all()


def test_behind_one_layer_children_gain_at_most_what_was_promised() -> None:
    """A bound is a concave function of coefficients there."""
    bounds, domains = bounds_of("few neurons")
    of = inspected(bounds, domains, missed=1e6)
    active, inactive = (children_gain(of, sign) for sign in (1, -1))
    costs = of.seen.neurons[0, 0] < 0
    assert (costs & ~active.same).any()
    gained, promised = worth(active.gain, inactive.gain)[costs], of.gains()[0, costs]
    assert (gained <= promised + 1e-9).all()


def test_promises_do_not_depend_on_whether_a_caller_wants_gradients() -> None:
    bounds, domains = bounds_of("mlp")
    of = inspected(bounds, domains, missed=1e6)
    wanted = of.gains()
    with torch.no_grad():
        assert torch.equal(of.gains(), wanted)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_side_promises_no_more_than_is_missed(name: str) -> None:
    bounds, domains = bounds_of(name)
    most = inspected(bounds, domains, missed=1e6).gains()
    little = float(most.max()) / 10
    few = inspected(bounds, domains, missed=little).gains()
    assert (few <= 2 * little * (1 + 1e-12)).all()
    assert (few <= most).all()
    assert (few < most).any()
    assert (few == most).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_neuron_that_promises_most_is_split_and_none_that_is_split_already(name: str) -> None:
    bounds, whole = bounds_of(name)
    domains = split_anyhow(whole)
    of = inspected(bounds, domains, missed=1e6)
    column, splittable = most_promising(of)
    assert bool(splittable)
    assert int(column) == int(of.gains().argmax())
    assert (of.gains()[domains.phases != 0] == NOTHING).all()
