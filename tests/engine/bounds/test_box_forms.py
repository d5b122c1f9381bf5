"""Forms of many boxes alone: they hold, in what varies of a network and around what does not."""

from __future__ import annotations

import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Builder, SmallNetwork, mlp, points_in
from torch import Tensor

from runner.engine.bounds.box_forms import MOST_SETS, BoxForms, most_columns
from runner.engine.bounds.boxes import RowBounds
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.live_part import LivePart
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op

POSITIONS, CHANNELS, HIDDEN = 4, 3, 5


def branches(seed: int) -> SmallNetwork:
    """As mscn: pixels of a branch by themselves, each times a mask, and their mean, beside another
    branch that the last layers see as well.
    """
    builder = Builder((POSITIONS * (CHANNELS + 1) + 3,), seed=seed)
    index = torch.arange(POSITIONS * (CHANNELS + 1)).reshape(POSITIONS, CHANNELS + 1)
    pixels = builder.select("x", index[:, :CHANNELS].T.unsqueeze(2))
    mask = builder.select("x", index[:, CHANNELS].expand(HIDDEN, POSITIONS).unsqueeze(2))
    for _ in range(2):
        pixels = builder.pointwise(Op.RELU, builder.conv(pixels, HIDDEN, kernel=(1, 1)))
    shape = builder.shape(pixels)
    both = builder.concat(0, *(builder.reshape(one, 1, *shape) for one in (pixels, mask)))
    product = builder.flatten(builder.add(Op.PRODUCT, (both,), shape))
    other = builder.select("x", torch.arange(3) + POSITIONS * (CHANNELS + 1))
    other = builder.pointwise(Op.RELU, builder.linear(other, HIDDEN))
    joined = builder.concat(0, product, other)
    hidden = builder.pointwise(Op.RELU, builder.linear(joined, 8))
    return builder.network(builder.pointwise(Op.SIGMOID, builder.linear(hidden, 2)))


def boxes(inputs: int, seed: int, count: int = 6, width: float = 0.3) -> Interval:
    """Points but for one or two inputs, which are not the same in all."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand((count, inputs), generator=generator, dtype=torch.float64) * 2 - 1
    radius = torch.zeros_like(centre)
    for number in range(count):
        radius[number, [number % 3, (4 * number + 3) % inputs]] = width  # some of them masks
    return Interval(centre - radius, centre + radius)


def row_bounds(forms: BoxForms, box: Interval, wanted: float = torch.inf) -> RowBounds:
    """Of both signs of both outputs of each box, one box after the other."""
    count = len(box.lower)
    rows = torch.cat((torch.eye(2), -torch.eye(2))).double().repeat(count, 1)
    root = torch.arange(count)
    return forms.rows(
        box, root, rows, root.repeat_interleave(4), torch.full((4 * count,), wanted).double()
    )


def lower_bounds(forms: BoxForms, box: Interval, wanted: float = torch.inf) -> Tensor:
    """[boxes, 4]."""
    return row_bounds(forms, box, wanted).lower.reshape(-1, 4)


def outputs(network: SmallNetwork, box: Interval) -> Tensor:
    """At 300 points, both signs: [points, 4]."""
    values = network.outputs(points_in(box, 300)[:, 0].double())
    return torch.cat((values, -values), 1)


@examples(20)
@given(st.integers(0, 1000))
def test_bounds_of_every_box_hold(seed: int) -> None:
    network = branches(seed)
    box = boxes(network.graph.input.size, seed)
    found = lower_bounds(BoxForms(network.bound(), box, NoTagger()), box)
    for number in range(len(box.lower)):
        assert (found[number] <= outputs(network, box.part(number)).amin(0)).all()


@examples(20)
@given(st.integers(0, 1000))
def test_bounds_of_parts_hold_and_come_near_to_what_is_reached(seed: int) -> None:
    network = branches(seed)
    root = boxes(network.graph.input.size, seed)
    forms = BoxForms(network.bound(), root, NoTagger())
    part = Interval(root.centre, root.centre + (root.upper - root.centre) * 1e-3)
    found = lower_bounds(forms, part)
    for number in range(len(root.lower)):
        least = outputs(network, part.part(number)).amin(0)
        assert (found[number] <= least).all()
        assert (least - found[number]).max() < 1e-3


def test_a_bound_has_the_slopes_of_its_box_at_the_inputs_that_vary() -> None:
    network = mlp(3, 2)  # one linear layer
    box = boxes(3, 0, width=0.1)
    root = torch.arange(len(box.lower))
    rows = torch.tensor([[1.0, -2.0]], dtype=torch.float64).expand(len(root), -1)
    wanted = torch.zeros(len(root), dtype=torch.float64)
    found = BoxForms(network.bound(), box, NoTagger()).rows(box, root, rows, root, wanted)
    weight = next(iter(t for t in network.tensors.values() if t.dim() == 2)).double()
    wide = box.lower < box.upper
    assert torch.allclose(found.coefficients, torch.where(wide, rows @ weight, 0.0))


def test_what_no_free_input_reaches_is_not_passed_again() -> None:
    network = branches(0)
    point = torch.zeros(1, network.graph.input.size, dtype=torch.float64)
    box = Interval(point, point + torch.eye(point.shape[1])[:1].double())
    (part,) = BoxForms(network.bound(), box, NoTagger()).parts
    assert part.inputs.tolist() == [0]
    # One pixel of four, in two layers of each five neurons, and what follows.
    whole = BoxForms(network.bound(), widened(box), NoTagger()).parts[0]
    assert isinstance(part, LivePart)
    assert part.neurons < 0.7 * whole.neurons
    assert part.kept > whole.kept == 0


def widened(box: Interval) -> Interval:
    return Interval(box.lower - 0.1, box.upper + 0.1)


def test_boxes_with_the_same_free_inputs_go_together_while_these_are_few_sets() -> None:
    box = boxes(19, 0)
    wide = {tuple(row.nonzero()[:, 0].tolist()) for row in box.lower < box.upper}
    assert len(BoxForms(branches(0).bound(), box, NoTagger()).parts) == len(wide) > 1
    assert most_columns(box) == 2
    count = MOST_SETS + 1
    lower = torch.zeros(count, count, dtype=torch.float64)
    assert most_columns(Interval(lower, lower + torch.eye(count).double())) == count


def test_a_property_of_points_alone_has_bounds() -> None:
    network = branches(1)
    point = torch.rand(8, network.graph.input.size, dtype=torch.float64)
    box = Interval(point, point)
    found = lower_bounds(BoxForms(network.bound(), box, NoTagger()), box)
    values = network.outputs(point)
    assert (found <= torch.cat((values, -values), 1)).all()
    assert torch.allclose(found, torch.cat((values, -values), 1), atol=1e-9)


@examples(10)
@given(st.integers(0, 1000))
def test_rows_that_go_back_are_no_looser_than_forms(seed: int) -> None:
    network, box = branches(seed), boxes(19, seed, width=0.5)
    forms = BoxForms(network.bound(), box, NoTagger())
    alone, back = (lower_bounds(forms, box, wanted) for wanted in (-torch.inf, torch.inf))
    assert (back >= alone).all()


def test_rows_that_go_back_close_much_of_what_forms_lose() -> None:
    network, box = branches(0), boxes(19, 0, width=0.5)
    forms = BoxForms(network.bound(), box, NoTagger())
    alone, back = (lower_bounds(forms, box, wanted) for wanted in (-torch.inf, torch.inf))
    least = torch.stack([outputs(network, box.part(number)).amin(0) for number in range(6)])
    assert (least - back).sum() < 0.8 * (least - alone).sum()


@examples(10)
@given(st.integers(0, 1000), st.sampled_from([-torch.inf, torch.inf]))
def test_planes_lie_below_their_rows_all_over_a_box(seed: int, wanted: float) -> None:
    network, box = branches(seed), boxes(19, seed, width=0.5)
    found = row_bounds(BoxForms(network.bound(), box, NoTagger()), box, wanted)
    assert found.planes is not None
    for number in range(len(box.lower)):
        some = box.part(number)
        points = points_in(some, 300).double()[:, 0]
        values = network.outputs(points)
        for row, of_row in enumerate(torch.cat((values, -values), 1).T, 4 * number):
            plane = found.planes[row]
            least = torch.where(plane > 0, some.lower[0], some.upper[0])
            above = ((points - least) * plane).sum(1)
            assert (of_row >= found.lower[row] + above - 1e-12).all()


def test_a_node_without_room_for_its_matrix_is_passed_as_it_is() -> None:
    network, box = branches(2), boxes(19, 2)
    whole = BoxForms(network.bound(), box, NoTagger())
    scarce = BoxForms(network.bound(), box, NoTagger(), budget=Budget(1))
    assert torch.allclose(
        lower_bounds(whole, box, -torch.inf), lower_bounds(scarce, box, -torch.inf), atol=1e-9
    )
    least = torch.stack([outputs(network, box.part(number)).amin(0) for number in range(6)])
    assert (lower_bounds(scarce, box) <= least).all()
