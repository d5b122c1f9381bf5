"""What planes below rows leave of a box: all that is not proved, and less than the box."""

from __future__ import annotations

import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from runner.engine.search.box_store import Boxes
from runner.engine.search.clipped import left, proved_margin, share


def one_box(lower: list[float], upper: list[float]) -> Boxes:
    nothing = torch.zeros((1, 0), dtype=torch.float64)
    return Boxes(
        lower=torch.tensor([lower], dtype=torch.float64),
        upper=torch.tensor([upper], dtype=torch.float64),
        margins=torch.full((1, 1), -1.0, dtype=torch.float64),
        depth=torch.zeros(1, dtype=torch.long),
        known_lower=nothing,
        known_upper=nothing,
        way=torch.zeros(1, dtype=torch.int8),
    )


def of_one(planes: list[list[float]], missing: list[float], box: Boxes) -> Boxes:
    of = torch.zeros(len(planes), dtype=torch.long)
    return left(box, of, torch.tensor(planes).double(), torch.tensor(missing).double())


@examples(50)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_nothing_is_cut_off_that_a_plane_does_not_prove(seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand((2, 4), generator=generator, dtype=torch.float64).sort(0).values
    box = one_box(ends[0].tolist(), ends[1].tolist())
    planes = torch.randn((rows, 4), generator=generator, dtype=torch.float64)
    missing = torch.rand(rows, generator=generator, dtype=torch.float64) * 0.3
    part = left(box, torch.zeros(rows, dtype=torch.long), planes, missing)
    points = ends[0] + torch.rand((500, 4), generator=generator).double() * (ends[1] - ends[0])
    inside = ((part.lower <= points) & (points <= part.upper)).all(1)
    lowest = torch.where(planes > 0, ends[0], ends[1])
    above = ((points.unsqueeze(1) - lowest) * planes).sum(2) - missing
    assert (above.amax(1)[~inside] >= proved_margin(missing).min()).all()


def test_a_plane_leaves_what_lies_near_its_lower_end() -> None:
    box = one_box([0.0, 0.0], [1.0, 1.0])
    part = of_one([[2.0, -4.0]], [1.0], box)
    assert torch.allclose(part.upper, torch.tensor([[0.5, 1.0]]).double(), atol=1e-2)
    assert torch.allclose(part.lower, torch.tensor([[0.0, 0.75]]).double(), atol=1e-2)
    assert torch.allclose(share(part, box), torch.tensor([0.125]).double(), atol=1e-2)


def test_a_flat_plane_or_one_that_is_no_number_leaves_all() -> None:
    box = one_box([0.0, -1.0], [1.0, 1.0])
    for planes, missing in (
        ([[0.0, 0.0]], [1.0]),
        ([[torch.nan, 1.0]], [torch.inf]),
        ([[1.0, 1.0]], [torch.nan]),
    ):
        part = of_one(planes, missing, box)
        assert torch.equal(part.lower, box.lower)
        assert torch.equal(part.upper, box.upper)


def test_planes_that_leave_no_point_together_leave_the_box_as_it_is() -> None:
    box = one_box([0.0], [1.0])
    part = of_one([[10.0], [-10.0]], [1.0, 1.0], box)
    assert torch.equal(part.lower, box.lower)
    assert torch.equal(part.upper, box.upper)
