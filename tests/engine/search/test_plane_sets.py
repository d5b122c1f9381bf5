"""Planes in a search: each disjunct's lie above the ReLUs and serve its own bound; they take
domains away, change no verdict, and go where they gain nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from examples import seeds
from questions import bounded, case, question, region
from small_networks import Builder, SmallNetwork, mlp, points_in
from test_input_split import context
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Method
from runner.engine.bounds.beta import BetaSettings, SplitBounds
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.planes import NodePlanes
from runner.engine.incomplete import Incomplete
from runner.engine.network.graph import Op
from runner.engine.search import plane_sets, relu_split
from runner.engine.search.branching import inspected
from runner.engine.search.domains import Domains
from runner.engine.search.plane_sets import PlaneSets
from runner.engine.search.relu_split import ReluSplit
from runner.engine.search.search import Progress, SearchEnd
from runner.engine.search.split_root import SplitRoot
from runner.problem.property.model import Property

Without = frozenset[EnginePart]

TRIANGLES: Without = frozenset({EnginePart.PLANES})
SETTINGS = BetaSettings(iterations=20)


def wide(seed: int, radius: float = 0.5) -> tuple[SmallNetwork, Property]:
    """Of many inputs that every neuron sees, an output is to stay a little above what a descent
    found.
    """
    network, inputs = mlp(60, 40, 2, seed=seed), 60
    x = torch.rand(1000, inputs, generator=torch.Generator().manual_seed(0)) * 2 * radius - radius
    for _ in range(60):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(network.outputs(x)[:, 0].sum(), x)
        x = (x - radius / 15 * slope.sign()).clamp(-radius, radius)
    values = network.outputs(x.detach())[:, 0]
    limit = float(values.min()) - 0.02 * float(values.abs().max())
    asked = case([-radius] * inputs, [radius] * inputs, region([[1, 0]], [limit]))
    return network, question(asked, outputs=2)


def searched(
    network: SmallNetwork, instance: Property, without: Without
) -> tuple[SearchEnd, Incomplete, Progress]:
    incomplete = bounded(network, instance, Method.CROWN, without=without)
    chosen = context(network, instance, incomplete, without=without)
    return ReluSplit(chosen).run(), incomplete, chosen.progress


def test_planes_take_domains_away_and_change_no_verdict() -> None:
    with_planes = plain = 0
    for seed in (1, 3):
        network, instance = wide(seed)
        outcome, incomplete, progress = searched(network, instance, frozenset())
        assert outcome is SearchEnd.PROVED
        assert not incomplete.open_targets
        outcome, _, without = searched(network, instance, TRIANGLES)
        assert outcome is SearchEnd.PROVED
        with_planes, plain = with_planes + progress.domains, plain + without.domains
    assert with_planes < 0.7 * plain


def test_what_is_proved_with_few_domains_has_no_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(PlaneSets, "make", lambda self, *of: made.append(1))
    monkeypatch.setattr(relu_split, "EASY", 10**6)
    outcome, _, progress = searched(*wide(1), frozenset())
    assert outcome is SearchEnd.PROVED
    assert progress.domains > 64
    assert not made


def rooted(network: SmallNetwork, instance: Property) -> tuple[SplitRoot, Domains]:
    """What a search begins with: the whole box for each disjunct."""
    incomplete = bounded(network, instance, Method.CROWN)
    chosen = context(network, instance, incomplete)
    root = SplitRoot.of(chosen)
    disjuncts = torch.arange(chosen.case.specs.disjuncts)
    return root, root.domains(disjuncts, SETTINGS)[0]


def made(root: SplitRoot, whole: Domains) -> PlaneSets:
    plain, thresholds = root.subdomains(whole), root.rows.goal(whole.disjunct, root.dtype)
    assert root.planes is not None
    seen = root.bounds.inspect(plain)
    root.planes.make(inspected(root.bounds, plain, seen, thresholds), whole.disjunct)
    return root.planes


def several(count: int = 4, seed: int = 1, *hidden: int) -> tuple[SmallNetwork, Property]:
    """Unsafe is where an output is at most what is far from being proved: one in each disjunct."""
    network = mlp(20, *(hidden or (24, 16)), count, seed=seed)
    regions = [region([row], [float(n)]) for n, row in enumerate(torch.eye(count).tolist())]
    return network, question(case([-0.4] * 20, [0.4] * 20, *regions), outputs=count)


def planes_of(root: SplitRoot) -> Mapping[str, NodePlanes]:
    assert isinstance(root.bounds, SplitBounds)
    return root.bounds.planes


def room_above(root: SplitRoot, network: SmallNetwork) -> Tensor:
    """By how much planes of all sets are above the ReLUs: at points, most of them corners, those
    where a plane is lowest and highest among them.
    """
    box, planes = root.bounds.intervals["x"], planes_of(root)
    slopes = torch.cat([of_node.slopes.flatten(0, 1) for of_node in planes.values()])
    ends = [torch.where(side * slopes > 0, box.lower, box.upper) for side in (1, -1)]
    points = torch.cat([points_in(box, 3000)[:, 0], *ends]).double()
    values, found = network.values(points), []
    for node in root.bounds.space.nodes:
        if node.name in planes:
            mine = planes[node.name].to(torch.float64)
            outputs = values[node.name].flatten(1)[:, node.neurons[node.own[mine.at]]]
            heights = (
                torch.einsum("spn,xn->sxp", mine.slopes.double(), points) + mine.offsets[:, None]
            )
            found.append((heights - outputs).flatten())
    return torch.cat(found)


@pytest.mark.parametrize("seed", seeds(0, 3))
@pytest.mark.parametrize("hidden", [(24,), (24, 16), (10, 10, 10)])
def test_planes_of_all_sets_lie_above_the_relus_of_the_network(
    seed: int, hidden: tuple[int, ...]
) -> None:
    network, instance = several(3, seed, *hidden)
    root, whole = rooted(network, instance)
    made(root, whole)
    room = room_above(root, network)
    assert room.min() >= -1e-12
    assert room.min() < 1e-5, "no higher than they must be"


def test_a_disjuncts_own_planes_serve_it_best() -> None:
    network, instance = several()
    root, whole = rooted(network, instance)
    sets = made(root, whole).of(whole.disjunct)
    assert sets is not None
    assert sorted(sets.tolist()) == [0, 1, 2, 3]
    domains = root.subdomains(whole)
    goal = torch.full_like(root.rows.goal(whole.disjunct, root.dtype), torch.inf)
    own, _ = root.bounds.optimized(domains, goal, SETTINGS)
    for turn in (1, 2, 3):
        others = replace(domains, sets=(sets + turn) % 4)
        found, _ = root.bounds.optimized(others, goal, SETTINGS)
        assert (own.amax(0) > found.amax(0)).all()


def test_disjuncts_that_find_no_room_share_the_set_of_the_weakest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    each = 20 * 4  # bytes of a plane
    monkeypatch.setattr(plane_sets, "PLANE_BYTES", 2 * 16 * each)
    monkeypatch.setattr(plane_sets, "LEAST_PLANES", 16)
    network, instance = several()
    root, whole = rooted(network, instance)
    bounds = root.bounds.bound(root.subdomains(whole))
    missed = (bounds - root.rows.goal(whole.disjunct, root.dtype)).amax(0)
    weakest, second, *others = missed.argsort().tolist()
    sets = made(root, whole).of(whole.disjunct)
    assert sets is not None
    assert sets[[weakest, second, *others]].tolist() == [0, 1, 0, 0]
    planes = planes_of(root)
    assert all(len(of_node.slopes) == 2 for of_node in planes.values())
    assert sum(len(of_node.at) for of_node in planes.values()) == 16
    assert room_above(root, network).min() >= -1e-12


def apart() -> tuple[SmallNetwork, Property]:
    """Every neuron sees an input of its own: a plane over that is a triangle's side."""
    builder = Builder((12,))
    x = builder.pointwise(Op.RELU, builder.linear_of("x", torch.eye(12), torch.zeros(12)))
    network = builder.network(builder.linear_of(x, -torch.ones(1, 12), torch.zeros(1)))
    return network, question(case([-1.0] * 12, [1.0] * 12, region([[1]], [-11.0])))


def test_planes_are_dropped_where_they_gain_nothing() -> None:
    root, whole = rooted(*apart())
    before = root.bounds.bound(root.subdomains(whole))
    domains, bounds, multipliers = root.with_planes(whole, SETTINGS)
    assert root.planes is not None
    assert not root.planes.possible
    assert root.planes.of(whole.disjunct) is None
    assert torch.equal(bounds, before)
    again = replace(root.subdomains(domains), multipliers=multipliers)
    assert torch.equal(root.bounds.bound(again), before)


def test_planes_are_kept_where_they_gain() -> None:
    root, whole = rooted(*wide(1))
    domains, bounds, multipliers = root.with_planes(whole, SETTINGS)
    before = root.bounds.bound(replace(root.subdomains(whole), sets=None))
    assert (bounds > before).all()
    shared = replace(root.subdomains(domains), multipliers=multipliers)
    assert torch.allclose(root.bounds.bound(shared), bounds)
    assert ((multipliers >= 0) & (multipliers <= 1)).all()


def test_planes_are_fitted_again_for_open_domains_of_their_own_set_alone() -> None:
    network, instance = several()
    root, whole = rooted(network, instance)
    whole = root.with_planes(whole, SETTINGS)[0]
    assert root.planes is not None
    before = dict(planes_of(root))
    some = whole.select(torch.tensor([1, 2]))
    domains, thresholds = root.subdomains(some), root.rows.goal(some.disjunct, root.dtype)
    # Where half of the neurons are inactive, other inputs count.
    half = domains.before.upper.clone()
    half[:, ::2] = half[:, ::2].clamp(max=0)
    phases = domains.phases.clone()
    phases[:, ::2] = -1
    split = replace(domains, before=Interval(domains.before.lower, half), phases=phases)
    root.planes.fit(
        inspected(root.bounds, split, root.bounds.inspect(split), thresholds), some.disjunct
    )
    assert room_above(root, network).min() >= -1e-12
    fitted = set(domains.sets.tolist())  # type: ignore[union-attr]
    for name, planes in planes_of(root).items():
        for number in range(4):
            same = torch.equal(planes.slopes[number], before[name].slopes[number])
            assert same == (number not in fitted)
            assert torch.equal(planes.at, before[name].at)


def test_planes_are_fitted_again_more_and_more_rarely() -> None:
    root, whole = rooted(*wide(1))
    assert root.planes is not None
    assert not root.planes.due(10**6), "there are none"
    root.with_planes(whole, SETTINGS)
    found = [visited for visited in range(0, 2000, 10) if root.planes.due(visited)]
    assert found[0] == plane_sets.AGAIN
    gaps = [later - sooner for sooner, later in pairwise(found)]
    assert gaps == sorted(gaps)
    assert len(found) > 3


@pytest.mark.parametrize(
    ("much", "after", "kept", "growth"),
    [
        (False, 1.2, False, plane_sets.IDLE_GROWTH),
        (False, 1.0, True, plane_sets.IDLE_GROWTH),
        (False, 0.5, True, plane_sets.GROWTH),
        (True, 1.2, True, plane_sets.GROWTH),
    ],
)
def test_planes_that_were_fitted_again_stay_where_bounds_are_no_looser(
    much: bool, after: float, kept: bool, growth: float
) -> None:
    network, instance = several()
    root, whole = rooted(network, instance)
    whole = root.with_planes(whole, SETTINGS)[0]
    assert root.planes is not None
    visited, root.planes.are_much = plane_sets.AGAIN, much
    assert root.planes.due(visited)
    domains, thresholds = root.subdomains(whole), root.rows.goal(whole.disjunct, root.dtype)
    before, bounds = dict(planes_of(root)), root.bounds.bound(domains)
    seen = root.bounds.inspect(domains)
    root.planes.fit(inspected(root.bounds, domains, seen, thresholds), whole.disjunct)
    assert not torch.equal(root.bounds.bound(domains), bounds)
    missed = torch.ones(len(whole))
    assert root.planes.keep(missed, after * missed) is kept
    assert torch.equal(root.bounds.bound(domains), bounds) is not kept
    same = [planes is before[name] for name, planes in planes_of(root).items()]
    assert all(same) if not kept else not any(same)
    assert not root.planes.due(int(visited * growth) - 1)
    assert root.planes.due(int(visited * growth))
