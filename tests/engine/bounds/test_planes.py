"""Planes lie above ReLUs over the whole box, whatever rounds; fitted ones serve their bound; bounds
that share with them hold, alone and in any company.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
import torch
from examples import examples, seeds
from hypothesis import given
from hypothesis import strategies as st
from small_networks import SmallNetwork, cnn, mlp, points_in
from test_beta import SETTINGS, Root
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.neuron_forms import NeuronForms
from runner.engine.bounds.plane_bands import BandedSlopes
from runner.engine.bounds.plane_fit import Game, fitted
from runner.engine.bounds.planes import Above, NodePlanes, UpperForms, proved
from runner.engine.bounds.split_relu import SplitNode, SplitRelaxation
from runner.engine.bounds.subdomains import Subdomains
from runner.engine.bounds.tagging import NoTagger

# Of what goes into a plane, more than its offset is above what it must be.
LOWER = 1e-5
FEW, MANY = st.integers(1, 4), st.integers(1, 30)


def forms_of(draw: st.DrawFn, inputs: st.SearchStrategy[int], neurons: int) -> UpperForms:
    """Of any sizes; some inputs are fixed, and some neurons have one sign all over the box."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    many, dtype = draw(inputs), draw(st.sampled_from([torch.float32, torch.float64]))

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    def size() -> float:
        return 10.0 ** draw(st.integers(-5, 5))

    lower = random(1, many) * size()
    width = random(1, many).abs() * size() * random(1, many).gt(draw(st.sampled_from([-9, 0])))
    box = Interval(lower, lower + width)
    rows = random(neurons, many) * size() * 10 ** (random(neurons, 1) * draw(st.integers(0, 2)))
    middle, radius = (part.flatten().double() for part in box.ball)
    reach = rows.double().abs() @ radius
    away = draw(st.sampled_from([-3.0, -0.9, 0.0, 0.3, 3.0]))  # of the reach: 3 says one sign
    return UpperForms(box, rows, -(rows.double() @ middle) - away * reach)


@st.composite
def few(draw: st.DrawFn) -> UpperForms:
    """Such that all corners can be looked at."""
    return forms_of(draw, FEW, draw(st.integers(1, 3)))


def exactly(values: Tensor) -> list[Fraction]:
    return [Fraction(float(value)) for value in values.flatten()]


def at(row: Tensor, constant: Tensor, x: list[Fraction]) -> Fraction:
    """A linear function of an exact point."""
    parts = (a * b for a, b in zip(exactly(row), x, strict=True))
    return sum(parts, start=Fraction(float(constant)))


def places(box: Interval) -> Iterable[list[Fraction]]:
    """All corners, and points between."""
    ends = zip(exactly(box.lower), exactly(box.upper), strict=True)
    yield from map(list, product(*ends))
    yield from map(exactly, points_in(box, 10)[:, 0])


def least_room(forms: UpperForms, planes: NodePlanes) -> list[list[Fraction]]:
    """By how much planes are above the ReLUs of their forms, where that is least; by set."""
    found = []
    for slopes, offsets in zip(planes.slopes, planes.offsets, strict=True):
        rooms = []
        lines = zip(slopes, offsets, forms.rows, forms.constants, strict=True)
        for slope, offset, row, constant in lines:
            rooms.append(
                min(
                    at(slope, offset, x) - max(Fraction(0), -at(row, constant, x))
                    for x in places(forms.box)
                )
            )
        found.append(rooms)
    return found


def all_proved(forms: UpperForms, slopes: Tensor) -> NodePlanes:
    return proved(forms, torch.arange(len(forms.rows)), slopes, len(forms.rows))


def some_game(forms: UpperForms, seed: int) -> Game:
    generator = torch.Generator().manual_seed(seed)
    outputs = -torch.rand(len(forms.rows), generator=generator).to(forms.rows)
    size = (outputs.abs() @ forms.rows.abs()).max()
    return Game(outputs, torch.randn(forms.rows.shape[1], generator=generator).to(size) * size)


@examples(200)
@given(few(), st.integers(0, 9), st.sampled_from([0.0, 1.0, 1e3]))
def test_planes_of_any_slopes_lie_above(forms: UpperForms, seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(2, *forms.rows.shape, generator=generator)
    slopes = size * (torch.randn(shares.shape, generator=generator) - shares).to(forms.rows)
    slopes = slopes * forms.rows
    rooms = least_room(forms, all_proved(forms, slopes))
    assert all(room >= 0 for of_set in rooms for room in of_set)


@examples(200)
@given(few(), st.integers(0, 9))
def test_fitted_planes_lie_above_and_no_higher_than_they_must(forms: UpperForms, seed: int) -> None:
    planes = all_proved(forms, fitted(forms, some_game(forms, seed))[None])
    (rooms,) = least_room(forms, planes)
    sizes = planes.sizes[0].double() + forms.rows.double().abs() @ forms.box.size[0].double()
    allowed = LOWER * (sizes + forms.constants.abs()) + 1e-30
    for room, most in zip(rooms, exactly(allowed), strict=True):
        assert 0 <= room < most


@examples(50)
@given(few(), st.integers(0, 9))
def test_a_size_is_what_a_plane_comes_to_at_most(forms: UpperForms, seed: int) -> None:
    planes = all_proved(forms, fitted(forms, some_game(forms, seed))[None])
    for slope, offset, size in zip(
        planes.slopes[0], planes.offsets[0], exactly(planes.sizes[0]), strict=True
    ):
        assert all(abs(at(slope, offset, x)) <= size for x in places(forms.box))


def triangles(forms: UpperForms) -> tuple[Tensor, Tensor]:
    """Slopes [P, inputs] and offsets [P] of the triangles' upper sides, in float64."""
    middle, radius = (part.flatten().double() for part in forms.box.ball)
    rows = forms.rows.double()
    height, reach = -(rows @ middle + forms.constants), rows.abs() @ radius
    lower, upper = height - reach, height + reach
    crossing = (lower < 0) & (upper > 0)
    share = torch.where(crossing, upper / (upper - lower), (lower >= 0).double())
    raised = torch.where(crossing, -share * lower, 0.0)
    return -share[:, None] * rows, raised - share * forms.constants


def least(forms: UpperForms, game: Game, slopes: Tensor, offsets: Tensor) -> float:
    """The least value over the box of a bound with planes in place of the ReLUs."""
    middle, radius = (part.flatten().double() for part in forms.box.ball)
    outputs = game.outputs.double()
    row = game.rest.double() + outputs @ slopes.double()
    return float(outputs @ offsets.double() + row @ middle - row.abs() @ radius)


@st.composite
def any_forms(draw: st.DrawFn) -> UpperForms:
    return forms_of(draw, MANY, draw(st.integers(1, 12)))


@examples(200)
@given(any_forms(), st.integers(0, 9))
def test_fitted_planes_are_no_worse_than_triangles(forms: UpperForms, seed: int) -> None:
    game = some_game(forms, seed)
    planes = all_proved(forms, fitted(forms, game)[None])
    plain = least(forms, game, *triangles(forms))
    found = least(forms, game, planes.slopes[0], planes.offsets[0])
    size = float(game.outputs.double().abs() @ planes.sizes[0].double())
    size += float(game.rest.abs() @ forms.box.size[0]) + abs(plain)
    assert found >= plain - LOWER * size


@pytest.mark.parametrize("seed", seeds(0, 6))
def test_fitted_planes_gain_where_neurons_cross_and_see_the_same_inputs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(12, 30, generator=generator)
    box = Interval(torch.full((1, 30), -1.0), torch.full((1, 30), 1.0))
    forms = UpperForms(box, rows, torch.zeros(12).double())
    game = Game(-torch.ones(12), torch.zeros(30))
    planes = all_proved(forms, fitted(forms, game)[None])
    plain = least(forms, game, *triangles(forms))
    found = least(forms, game, planes.slopes[0], planes.offsets[0])
    corners = torch.rand(20_000, 30, generator=generator).round() * 2 - 1
    reached = float(-(corners @ rows.T).clamp(min=0).sum(1).max())
    assert plain < found <= reached
    assert found - plain > 0.1 * (reached - plain)


NETWORKS = {"mlp": lambda: mlp(5, 12, 10, 3, seed=1), "cnn": lambda: cnn(size=6)}
SETS = 3


def with_planes(
    network: SmallNetwork, dtype: torch.dtype = torch.float64, seed: int = 0, every: int = 2
) -> Root:
    """Of every so many neurons of each ReLU node: planes of random slopes, some of them good."""
    root = Root(network, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    made = NeuronForms(network.bound(), root.intervals, NoTagger(), lambda: None)
    planes = {}
    for node in root.space.nodes:
        if not len(node.neurons):
            continue
        rows, constants = (part[1][::every] for part in made.of(node.before, node.neurons))
        forms = UpperForms(root.intervals["x"], rows, constants)
        shares = torch.rand(SETS, *rows.shape, generator=generator).to(dtype)
        where = torch.arange(len(node.neurons))[::every]
        planes[node.name] = proved(forms, where, -shares * rows, len(rows))
    root.bounds.planes = planes
    return root


def shared(root: Root, batch: int, splits: int, seed: int = 0) -> Subdomains:
    """Random sub-domains, of random sets."""
    generator = torch.Generator().manual_seed(seed)
    sets = torch.randint(SETS, (batch,), generator=generator)
    return replace(root.split(batch, splits, seed), sets=sets)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("splits", [0, 2, 4])
def test_bounds_with_planes_are_below_every_value_in_their_sub_domain(
    name: str, splits: int
) -> None:
    root = with_planes(NETWORKS[name]())
    domains = shared(root, batch=40, splits=splits)
    any_shares = root.bounds.bound(domains)
    best, _ = root.bounds.optimized(domains, torch.full((2, 40), torch.inf), SETTINGS)
    values, inside = root.reached(domains, 3000)
    assert inside.any()
    for found in (any_shares, best):
        excess = values[:, :, None] - found[:, None]
        assert (excess[:, inside] >= -1e-9).all()
    assert (best > root.bounds.bound(replace(domains, sets=None)) + 1e-3).any()


@examples(40)
@given(st.integers(0, 2**16), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_of_random_networks_proved_bounds_with_planes_hold(seed: int, hidden: list[int]) -> None:
    root = with_planes(mlp(3, *hidden, 2, seed=seed), torch.float32, seed, every=1)
    if not root.space.size:
        return
    domains = shared(root, batch=6, splits=1, seed=seed).to(torch.float32)
    found = root.bounds.bound(domains, proven=True).double()
    fine = root.bounds.to(torch.float64).bound(domains.to(torch.float64))
    assert (found <= fine).all()
    assert (found >= fine - 1e-3 * (1 + fine.abs())).all()
    points = points_in(root.intervals["x"], 500)[:, 0].double()
    values = root.network.values(points)
    inside = ((root.space.columns_of(values)[:, None] * domains.phases) >= 0).all(2)
    reached = torch.einsum("ko,po->kp", domains.rows[:, 0].double(), root.network.outputs(points))
    excess = reached[:, :, None] - found[:, None]
    assert (excess[:, inside] >= -1e-12 * (1 + reached.abs().max())).all()


def test_what_sharing_rounds_is_charged() -> None:
    """Where outputs are as great as their planes, and planes as great as can be."""
    generator = torch.Generator().manual_seed(0)
    rows, box = (
        torch.randn(6, 4, generator=generator),
        Interval(-torch.ones(1, 4), torch.ones(1, 4)),
    )
    planes = all_proved(UpperForms(box, rows, torch.zeros(6).double()), -rows[None] / 3)
    above = Above(planes, torch.zeros(1, dtype=torch.long))
    given_up = kept = 0
    for _ in range(40):
        coefficients = -torch.rand(1, 1, 6, generator=generator)
        to_planes = coefficients * torch.rand(1, 1, 6, generator=generator)
        rest = coefficients - to_planes
        of_input, constant = above.passed(to_planes)
        charge = Fraction(float(above.charge(coefficients)))
        for x in places(box):
            outputs = [
                at(slope, offset, x)
                for slope, offset in zip(planes.slopes[0], planes.offsets[0], strict=True)
            ]
            left = (a - b for a, b in zip(exactly(coefficients), exactly(rest), strict=True))
            value = sum(a * y for a, y in zip(left, outputs, strict=True))
            room = value - at(of_input, constant, x)
            assert room >= -charge
            given_up, kept = given_up + (room < 0), kept + 1
    assert given_up > kept / 10


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_what_is_given_to_a_plane_is_taken_from_the_triangle(share: float) -> None:
    """Of minus a ReLU in one column, where both are known: the bound is their mix."""
    where = torch.tensor([0])
    node = SplitNode("relu", "x", where, 0, 1, where, where, torch.zeros(1).double())
    slopes, offsets = torch.tensor([[[0.5, 0.0]]]).double(), torch.tensor([[0.75]]).double()
    banded = BandedSlopes.of(slopes, (2,))
    planes = NodePlanes(where, banded, offsets, offsets + 0.5, 1, torch.zeros(1).double())
    above = Above(planes, torch.zeros(1, dtype=torch.long))
    ends = torch.tensor([[-2.0]]).double(), torch.tensor([[2.0]]).double()
    phases, scale = torch.zeros(1, 1, dtype=torch.int8), torch.ones(1).double()
    relaxation = SplitRelaxation(node, *ends, phases, scale, above)
    row = torch.tensor([[[-1.0]]]).double()
    result, constant, of_input = relaxation.backward(row, torch.full_like(row, share))
    assert of_input is not None
    # The triangle's upper side is z / 2 + 1.
    assert result.item() == pytest.approx(-(1 - share) / 2)
    assert of_input.flatten().tolist() == pytest.approx([-share / 2, 0.0])
    assert constant.item() == pytest.approx(-(1 - share) - 0.75 * share)


def test_nothing_is_given_where_a_neuron_is_split_or_has_no_plane() -> None:
    root = with_planes(mlp(5, 12, 10, 3, seed=1), every=3)
    domains = shared(root, batch=30, splits=6)
    planed = torch.cat(
        [
            torch.zeros(len(node.neurons)).index_fill_(0, root.bounds.planes[node.name].at, 1.0)
            for node in root.space.nodes
        ]
    ).bool()
    free = planed & (domains.phases == 0)
    for share in (0.0, 1.0):
        some = torch.where(free, share, domains.multipliers)
        # Where a coefficient is positive, the multiplier is the lower slope, whatever the share.
        negative = root.bounds.inspect(domains).neurons < 0
        shares = torch.where(negative, some, domains.multipliers)
        found = root.bounds.bound(replace(domains, multipliers=shares))
        plain = root.bounds.bound(replace(domains, multipliers=shares, sets=None))
        assert torch.allclose(found, plain) == (share == 0.0)


def test_sets_that_share_a_batch_are_bounded_as_alone() -> None:
    root = with_planes(mlp(5, 12, 10, 3, seed=1))
    domains = shared(root, batch=10, splits=2)
    assert domains.sets is not None
    assert len(domains.sets.unique()) == SETS
    goal = root.bounds.bound(domains) + 0.05
    together, _ = root.bounds.optimized(domains, goal, SETTINGS)
    proven = root.bounds.bound(domains, proven=True)
    for index in range(10):
        alone = domains.select(torch.tensor([index]))
        found, _ = root.bounds.optimized(alone, goal[:, index : index + 1], SETTINGS)
        assert torch.allclose(found[:, 0], together[:, index])
        assert torch.allclose(root.bounds.bound(alone, proven=True)[:, 0], proven[:, index])
    other = replace(domains, sets=(domains.sets + 1) % SETS)
    assert not torch.allclose(root.bounds.bound(other), root.bounds.bound(domains))


def test_no_sub_domains_have_no_bounds() -> None:
    root = with_planes(mlp(5, 12, 10, 3, seed=1))
    none = shared(root, batch=4, splits=1).select(torch.zeros(0, dtype=torch.long))
    assert root.bounds.bound(none, proven=True).shape == (2, 0)


def test_gradients_of_rows_and_shares_are_true() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    where = torch.tensor([0, 2, 3, 5])
    node = SplitNode("relu", "x", where, 0, 4, torch.arange(4), where, torch.ones(6).double())
    phases = torch.tensor([[0, 1, -1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.int8)
    lower, upper = -random(3, 4).abs() - 0.1, random(3, 4).abs() + 0.1
    lower, upper = lower.masked_fill(phases > 0, 0.0), upper.masked_fill(phases < 0, 0.0)
    sizes = random(2, 3).abs()
    banded = BandedSlopes.of(random(2, 3, 5), (5,))
    planes = NodePlanes(
        torch.tensor([0, 2, 3]), banded, random(2, 3), sizes, 3, torch.zeros(1).double()
    )
    above = Above(planes, torch.tensor([1, 0, 1]))
    relaxation = SplitRelaxation(node, lower, upper, phases, random(4).abs(), above)
    rows = random(3, 3, 6).requires_grad_()
    multipliers = torch.rand(3, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()

    def passed(*of: Tensor) -> list[Tensor]:
        return [part for part in relaxation.backward(*of) if part is not None]

    assert len(passed(rows, multipliers)) == 3
    assert torch.autograd.gradcheck(passed, (rows, multipliers))
