"""Boxes that shrink: no point that meets all rows is cut off, whatever planes are below them, and
what is cut off lies as far above a threshold as it is said.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from questions import case, incomplete, question, region
from small_networks import mlp
from test_input_split import context, search
from torch import Tensor

from runner.contract.vocabulary import EnginePart
from runner.engine.bounds.boxes import BoxPropagator, summed_by_box
from runner.engine.bounds.tagging import NoTagger
from runner.engine.search import shrunk as shrunk_module
from runner.engine.search.box_store import Boxes, halves
from runner.engine.search.input_split import InputSplit
from runner.engine.search.margins import Planes
from runner.engine.search.search import SearchEnd
from runner.engine.search.shrunk import Shrunk, shrunk

COUNT, INPUTS, DISJUNCTS, ROWS = 6, 3, 2, 3
POINTS = 400


def some_boxes(generator: torch.Generator, dtype: torch.dtype) -> Boxes:
    """Narrow and wide ones, and an input that does not vary."""
    lower = torch.randn((COUNT, INPUTS), generator=generator, dtype=dtype)
    scale = 10.0 ** torch.randint(-5, 2, (COUNT, INPUTS), generator=generator)
    upper = lower + torch.rand((COUNT, INPUTS), generator=generator, dtype=dtype) * scale
    upper[0, 0] = lower[0, 0]
    nothing = torch.zeros((COUNT, 0), dtype=dtype)
    return Boxes(
        lower=lower,
        upper=upper.to(dtype),
        margins=torch.full((COUNT, DISJUNCTS), -1.0, dtype=torch.float64),
        depth=torch.zeros(COUNT, dtype=torch.long),
        known_lower=nothing,
        known_upper=nothing,
        way=torch.zeros(COUNT, dtype=torch.int8),
    )


def some_planes(boxes: Boxes, generator: torch.Generator) -> Planes:
    """With thresholds that some points of a box are above of, and some below."""
    shape = (COUNT, DISJUNCTS, ROWS, INPUTS)
    slopes = torch.randn(shape, generator=generator, dtype=torch.float64)
    slopes = slopes * 10.0 ** torch.randint(-3, 4, shape, generator=generator)
    slopes[0, 0, 0] = 0.0
    width = (boxes.upper.double() - boxes.lower.double())[:, None, None]
    spans = (slopes.abs() * width).sum(3)
    missing = spans * torch.rand(shape[:3], generator=generator, dtype=torch.float64)
    return Planes(boxes.lower.double(), boxes.upper.double(), missing, slopes)


def inside(lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    """Points [N, POINTS, inputs] of boxes, many of them on their sides."""
    part = torch.rand((len(lower), POINTS, INPUTS), generator=generator, dtype=torch.float64)
    part = (part * 1.6 - 0.3).clamp(0, 1)
    lower, upper = lower.double()[:, None], upper.double()[:, None]
    return (lower + part * (upper - lower)).clamp(lower, upper)


def above(planes: Planes, points: Tensor) -> Tensor:
    """How far each plane is above its threshold [N, POINTS, disjuncts, K]."""
    at = points[:, :, None, None]
    lower, upper = planes.lower[:, None, None, None], planes.upper[:, None, None, None]
    slopes = planes.slopes[:, None]
    moved = torch.where(slopes > 0, at - lower, upper - at)
    return (slopes.abs() * moved).sum(4) - planes.missing[:, None]


def wrongly_cut(boxes: Boxes, planes: Planes, found: Shrunk, points: Tensor) -> Tensor:
    """Points that meet all rows of an open disjunct, and were cut off, or closed with it."""
    excess = above(planes, points)
    meets = (excess <= 0).all(3) & boxes.open[:, None]
    low, high = found.lower.double()[:, None], found.upper.double()[:, None]
    gone = ((points < low) | (points > high)).any(2)
    return meets & (gone[:, :, None] | found.closed[:, None])


@examples(60)
@given(st.integers(0, 100_000), st.sampled_from([torch.float32, torch.float64]))
def test_no_point_that_meets_all_rows_is_cut_off(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = some_boxes(generator, dtype)
    boxes.margins[1, 0] = torch.inf
    planes = some_planes(boxes, generator)
    found = shrunk(boxes, planes)
    points = inside(boxes.lower, boxes.upper, generator)
    assert not wrongly_cut(boxes, planes, found, points).any()
    # What is cut off is above a threshold of each disjunct that was open, by what is claimed.
    low, high = found.lower.double()[:, None], found.upper.double()[:, None]
    gone = ((points < low) | (points > high)).any(2)[:, :, None] | found.closed[:, None]
    least = above(planes, points).amax(3)
    claimed = torch.where(boxes.open, found.margins, -torch.inf)[:, None].expand_as(least)
    assert (least >= claimed)[gone & boxes.open[:, None]].all()
    assert (found.margins > 0).all()
    assert (found.lower >= boxes.lower).all()
    assert (found.upper <= boxes.upper).all()
    assert (found.lower <= found.upper).all()


@examples(30)
@given(st.integers(0, 100_000))
def test_planes_over_a_box_hold_in_its_halves(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = some_boxes(generator, torch.float32)
    planes = some_planes(boxes, generator)
    parts = halves(boxes, torch.randint(INPUTS, (COUNT,), generator=generator))
    of = torch.arange(COUNT).repeat(2)
    found = shrunk(parts, planes.select(of))
    points = inside(parts.lower, parts.upper, generator)
    assert not wrongly_cut(parts, planes.select(of), found, points).any()


def test_a_cut_that_goes_a_little_too_deep_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the laws above look at would not be true of it."""
    monkeypatch.setattr(shrunk_module, "ROOM", -0.05)
    seen = 0
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        boxes = some_boxes(generator, torch.float64)
        planes = some_planes(boxes, generator)
        points = inside(boxes.lower, boxes.upper, generator)
        seen += int(wrongly_cut(boxes, planes, shrunk(boxes, planes), points).sum())
    assert seen > 0


def one(planes: list[list[float]], missing: list[float]) -> tuple[Boxes, Planes]:
    """Over the unit square, one disjunct."""
    nothing = torch.zeros((1, 0))
    box = Boxes(
        lower=torch.zeros((1, 2)),
        upper=torch.ones((1, 2)),
        margins=torch.full((1, 1), -1.0, dtype=torch.float64),
        depth=torch.zeros(1, dtype=torch.long),
        known_lower=nothing,
        known_upper=nothing,
        way=torch.zeros(1, dtype=torch.int8),
    )
    slopes = torch.tensor([[planes]], dtype=torch.float64)
    of = torch.tensor([[missing]], dtype=torch.float64)
    return box, Planes(box.lower.double(), box.upper.double(), of, slopes)


def test_what_one_plane_leaves_is_less_for_the_next() -> None:
    """x <= 1/4, and with that y >= 3/4 where y - x >= 1/2."""
    box, planes = one([[4.0, 0.0], [1.0, -1.0]], [1.0, 0.5])
    found = shrunk(box, planes)
    assert torch.allclose(found.upper, torch.tensor([[0.25, 1.0]]), atol=1e-2)
    assert torch.allclose(found.lower, torch.tensor([[0.0, 0.5]]), atol=1e-2)
    # Where y <= 0.6 was known, x <= 0.1 is left.
    small = replace(box, upper=torch.tensor([[1.0, 0.6]]))
    assert torch.allclose(shrunk(small, planes).upper, torch.tensor([[0.1, 0.6]]), atol=1e-2)


def test_planes_that_leave_nothing_close_the_disjunct_and_keep_the_box() -> None:
    box, planes = one([[4.0, 0.0], [-4.0, 0.0]], [1.0, 1.0])
    found = shrunk(box, planes)
    assert found.closed.all()
    assert torch.equal(found.upper, box.upper)
    assert 0 < float(found.margins) < 1e-2


def test_two_disjuncts_keep_what_either_leaves_and_a_closed_one_nothing() -> None:
    box, planes = one([[4.0, 0.0]], [1.0])
    other = Planes(planes.lower, planes.upper, planes.missing * 2, planes.slopes)
    both = Planes(
        planes.lower,
        planes.upper,
        torch.cat([planes.missing, other.missing], 1),
        torch.cat([planes.slopes, other.slopes], 1),
    )
    open_ = replace(box, margins=torch.tensor([[-1.0, -1.0]], dtype=torch.float64))
    assert torch.allclose(shrunk(open_, both).upper[0, 0], torch.tensor(0.5), atol=1e-2)
    half = replace(box, margins=torch.tensor([[-1.0, torch.inf]], dtype=torch.float64))
    assert torch.allclose(shrunk(half, both).upper[0, 0], torch.tensor(0.25), atol=1e-2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_known_cuts_nothing(bad: float) -> None:
    for planes, missing in (
        ([[4.0, 0.0]], [bad]),
        ([[bad, 1.0]], [torch.inf]),
        ([[torch.nan, torch.nan]], [1.0]),
        ([[0.0, 0.0]], [0.0]),
    ):
        box, of = one(planes, missing)
        found = shrunk(box, of)
        assert torch.equal(found.lower, box.lower)
        assert torch.equal(found.upper, box.upper)
        assert not found.closed.any()


def test_a_conjunction_needs_fewer_boxes_where_they_shrink() -> None:
    network = mlp(3, 16, 16, 2, seed=3)
    points = torch.rand((4000, 3), generator=torch.Generator().manual_seed(0)) * 2 - 1
    values = network.outputs(points)
    limit = float(values.amax(1).min()) - 0.02
    both = region([[1.0, 0.0], [0.0, 1.0]], [limit, limit])
    instance = question(case([-1.0] * 3, [1.0] * 3, both), outputs=2)
    end, _, progress = search(network, instance)
    assert end is SearchEnd.PROVED
    without = frozenset({EnginePart.SHRUNK})
    whole = context(network, instance, incomplete(network, instance), without=without)
    assert InputSplit(whole).run() is SearchEnd.PROVED
    assert progress.domains < whole.progress.domains


@examples(20)
@given(st.integers(0, 10_000))
def test_planes_of_a_network_leave_every_point_that_meets_all_rows(seed: int) -> None:
    """Below rows, below their mix, and below that of α, in the root and in its halves."""
    generator = torch.Generator().manual_seed(seed)
    network = mlp(INPUTS, 8, 8, 2, seed=seed % 50)
    points = torch.rand((2000, INPUTS), generator=generator).double() * 2 - 1
    values = network.outputs(points)
    limits = values.quantile(0.3 + 0.6 * torch.rand(1, generator=generator).double(), dim=0)[0]
    unsafe = region([[1.0, 0.0], [0.0, 1.0]], limits.tolist())
    instance = question(case([-1.0] * INPUTS, [1.0] * INPUTS, unsafe), outputs=2)
    split = InputSplit(context(network, instance, incomplete(network, instance)))
    boxes = split._root()
    meets = points[(values <= limits).all(1)]
    for _ in range(4):
        boxes, found = split._by_rows(boxes)
        assert found.planes is not None
        part = shrunk(boxes, found.planes)
        for index in range(len(boxes)):
            inner = ((boxes.lower[index] <= meets) & (meets <= boxes.upper[index])).all(1)
            mine = found.planes.select(torch.tensor([index]))
            assert (above(mine, meets[inner][None]) <= 1e-9).all()
            left = ((part.lower[index] <= meets) & (meets <= part.upper[index])).all(1)
            assert torch.equal(inner, left & inner)
            assert not (part.closed[index].any() and inner.any())
        boxes = halves(boxes, torch.randint(INPUTS, (len(boxes),), generator=generator))


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_all_boxes_share_have_the_bounds_of_rows_of_each(seed: int) -> None:
    network = mlp(INPUTS, 12, 12, 3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    boxes = some_boxes(generator, torch.float32)
    propagator = BoxPropagator(network.bound(), NoTagger())
    bounds = propagator.bound(boxes.interval((INPUTS,)), {})
    rows = torch.randn((4, 3), generator=generator, dtype=torch.float64)
    shared = propagator.same_rows(bounds, rows)
    box = torch.arange(COUNT).repeat(4)
    each = propagator.rows(bounds, rows.repeat_interleave(COUNT, 0), box)
    assert torch.allclose(shared.lower.flatten(), each.lower, rtol=1e-12, atol=1e-12)
    assert torch.allclose(shared.coefficients.flatten(0, 1), each.coefficients, atol=1e-12)


def test_what_open_neurons_depend_on_is_added_up_for_each_box() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found = summed_by_box(values, torch.tensor([0, 0, 2]), 4)
    assert found.tolist() == [[4.0, 6.0], [0.0, 0.0], [5.0, 6.0], [0.0, 0.0]]
