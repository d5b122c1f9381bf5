"""β-CROWN: bounds of sub-domains hold, their gradients are true, and children lose nothing."""

from __future__ import annotations

import pytest
import torch
from small_networks import SmallNetwork, box_of, cnn, mlp, points_in, specs_of
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds.beta import BetaSettings, SplitBounds
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.split import SplitSpace
from runner.engine.bounds.split_relu import SplitNode, SplitRelaxation
from runner.engine.bounds.subdomains import Subdomains
from runner.engine.bounds.tagging import NoTagger
from runner.engine.bounds.tighten import Tightener
from runner.engine.search.branching import Inspected

NETWORKS = {"mlp": lambda: mlp(5, 12, 10, 3, seed=1), "cnn": lambda: cnn(size=6)}
SETTINGS = BetaSettings(iterations=15)


class Root:
    """All that sub-domains of one box need."""

    def __init__(
        self, network: SmallNetwork, radius: float = 0.5, dtype: torch.dtype = torch.float64
    ) -> None:
        self.network = network
        bound = network.bound()
        box = box_of(network, radius).to(dtype)
        self.intervals = Propagator(bound, Settings(Method.CROWN)).bound(box).intervals
        self.space = SplitSpace.of(bound, self.intervals)
        scale = torch.ones(self.space.size, dtype=dtype)
        self.bounds = SplitBounds(
            bound, self.space, self.intervals, scale, NoTagger(), lambda: None
        )
        lower = self.space.columns_of({n: i.lower for n, i in self.intervals.items()})
        upper = self.space.columns_of({n: i.upper for n, i in self.intervals.items()})
        self.before = Interval(lower, upper)
        self.tightener = Tightener(
            bound, Settings(), self.space, self.intervals, NoTagger(), lambda: None
        )

    def split(self, batch: int, splits: int, seed: int = 0) -> Subdomains:
        """Random sub-domains with two rows each and slopes between 0 and 1."""
        generator = torch.Generator().manual_seed(seed)
        phases = torch.zeros((batch, self.space.size), dtype=torch.int8)
        for domain in range(batch):
            at = torch.randperm(self.space.size, generator=generator)[:splits]
            signs = torch.randint(2, (len(at),), generator=generator) * 2 - 1
            phases[domain, at] = signs.to(torch.int8)
        lower = torch.where(phases > 0, 0.0, self.before.lower)
        upper = torch.where(phases < 0, 0.0, self.before.upper)
        rows = specs_of(self.network, 2, seed)[:2].double()[:, None].expand(-1, batch, -1)
        shape = (2, batch, self.space.size)
        multipliers = torch.rand(shape, generator=generator, dtype=torch.float64)
        return Subdomains(rows, phases, Interval(lower, upper), multipliers)

    def reached(self, domains: Subdomains, count: int) -> tuple[Tensor, Tensor]:
        """Of sampled points: rows' values [K, P] of each, and in which domains they lie [P, B]."""
        points = points_in(self.intervals["x"], count)[:, 0]
        values = self.network.values(points)
        inputs = self.space.columns_of(values)
        outputs = values[self.network.graph.output].flatten(1)
        inside = ((inputs[:, None] * domains.phases) >= 0).all(2)
        return torch.einsum("ko,po->kp", domains.rows[:, 0], outputs), inside


@pytest.fixture(params=NETWORKS)
def root(request: pytest.FixtureRequest) -> Root:
    return Root(NETWORKS[request.param]())


@pytest.mark.parametrize("splits", [0, 1, 2, 4])
def test_bounds_are_below_every_value_in_their_sub_domain(root: Root, splits: int) -> None:
    domains = root.split(batch=40, splits=splits)
    any_multipliers = root.bounds.bound(domains)
    best, _ = root.bounds.optimized(domains, torch.full((2, 40), torch.inf), SETTINGS)
    values, inside = root.reached(domains, 3000)
    assert inside.any()
    for found in (any_multipliers, best):
        excess = values[:, :, None] - found[:, None]
        assert (excess[:, inside] >= -1e-9).all()


def test_tightened_bounds_hold_in_their_sub_domain_and_are_never_looser(root: Root) -> None:
    domains = root.split(batch=40, splits=3)
    found = root.tightener.tightened(domains.before)
    assert (found.lower >= domains.before.lower).all()
    assert (found.upper <= domains.before.upper).all()
    assert (found.upper - found.lower).sum() < (domains.before.upper - domains.before.lower).sum()
    points = points_in(root.intervals["x"], 3000)[:, 0]
    inputs = root.space.columns_of(root.network.values(points))
    _, inside = root.reached(domains, 3000)
    for domain in range(40):
        mine = inputs[inside[:, domain]]
        assert (mine >= found.lower[domain] - 1e-9).all()
        assert (mine <= found.upper[domain] + 1e-9).all()


def test_optimised_bounds_are_those_of_their_multipliers_and_never_below_the_first(
    root: Root,
) -> None:
    domains = root.split(batch=12, splits=3)
    best, multipliers = root.bounds.optimized(domains, torch.full((2, 12), torch.inf), SETTINGS)
    again = root.bounds.bound(Subdomains(domains.rows, domains.phases, domains.before, multipliers))
    assert torch.allclose(best, again)
    first = root.bounds.bound(domains)
    assert (best >= first - 1e-12).all()
    assert (best > first + 1e-3).any()
    slopes = multipliers[:, domains.phases == 0]
    assert ((slopes >= 0) & (slopes <= 1)).all()
    assert (multipliers >= 0).all()


def test_beta_gains_over_the_cut_alone(root: Root) -> None:
    domains = root.split(batch=30, splits=3)
    split = domains.phases != 0
    without = Subdomains(
        domains.rows, domains.phases, domains.before, domains.multipliers.masked_fill(split, 0.0)
    )
    best, multipliers = root.bounds.optimized(without, torch.full((2, 30), torch.inf), SETTINGS)
    assert (multipliers[:, split] > 0).any()
    cut = Subdomains(
        domains.rows, domains.phases, domains.before, multipliers.masked_fill(split, 0.0)
    )
    assert (best > root.bounds.bound(cut) + 1e-6).any()


@pytest.mark.parametrize("sign", [1, -1])
def test_beta_begins_where_a_childs_bound_is_its_parents(root: Root, sign: int) -> None:
    """Where the lower line was in use; elsewhere there was nothing to make up for."""
    parents = root.split(batch=root.space.size, splits=0)
    seen = root.bounds.inspect(parents)
    inspected = Inspected(root.bounds, parents, seen, torch.zeros_like(seen.bounds))
    children = inspected.child(torch.arange(root.space.size), sign)
    assert ((children.phases != 0).sum(1) == 1).all()
    used = seen.neurons.diagonal(dim1=1, dim2=2) > 0
    assert used.any()
    assert torch.allclose(root.bounds.bound(children)[used], seen.bounds[used])


def test_sub_domains_are_bounded_alike_alone_and_in_a_batch(root: Root) -> None:
    domains = root.split(batch=10, splits=2)
    goal = root.bounds.bound(domains) + 0.05
    together, _ = root.bounds.optimized(domains, goal, SETTINGS)
    for index in range(10):
        alone = domains.select(torch.tensor([index]))
        found, _ = root.bounds.optimized(alone, goal[:, index : index + 1], SETTINGS)
        assert torch.allclose(found[:, 0], together[:, index])


def test_gradients_of_rows_and_multipliers_are_true() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    at = torch.tensor([0, 2, 3, 5])
    node = SplitNode("relu", "x", at, 0, 4, torch.arange(4), at, torch.ones(6).double())
    phases = torch.tensor([[0, 1, -1, 0], [1, 0, 0, 0]], dtype=torch.int8)
    lower, upper = -random(2, 4).abs() - 0.1, random(2, 4).abs() + 0.1
    lower, upper = lower.masked_fill(phases > 0, 0.0), upper.masked_fill(phases < 0, 0.0)
    relaxation = SplitRelaxation(node, lower, upper, phases, random(4).abs())
    rows = random(3, 2, 6).requires_grad_()
    multipliers = torch.rand(3, 2, 4, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda *of: relaxation.backward(*of)[:2], (rows, multipliers))


@pytest.mark.parametrize(
    ("parent", "passes"),
    [(-1e9, 4), (-1.0, 15), (None, 15)],
    ids=["gained by its split", "gained nothing", "nothing is known of its parent"],
)
def test_a_sub_domain_without_hope_is_given_up_only_once_it_gained(
    root: Root, parent: float | None, passes: int
) -> None:
    counted: list[None] = []
    bounds = SplitBounds(
        root.network.bound(),
        root.space,
        root.intervals,
        root.bounds.scale,
        NoTagger(),
        lambda: counted.append(None),
    )
    domains = root.split(batch=6, splits=3)
    parents = None if parent is None else torch.full((6,), parent, dtype=torch.float64)
    settings = BetaSettings(iterations=15, patience=4)
    bounds.optimized(domains, torch.full((2, 6), 1e6), settings, parents)
    assert len(counted) == passes


def test_a_sub_domain_near_its_goal_is_not_given_up(root: Root) -> None:
    domains = root.split(batch=12, splits=3)
    best, _ = root.bounds.optimized(domains, torch.full((2, 12), torch.inf), SETTINGS)
    goal = best - 1e-6
    parents = torch.full((12,), -1e9, dtype=torch.float64)
    settings = BetaSettings(iterations=15, patience=4)
    patient, _ = root.bounds.optimized(domains, goal, settings, parents)
    assert (patient > goal).any(0).all()
