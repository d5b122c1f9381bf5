"""Curved bounds: what is below them is nowhere, and what bends upwards costs them nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import (
    Builder,
    SmallNetwork,
    box_of,
    boxes,
    lyapunov,
    mlp,
    multiplied,
    networks,
    points_in,
    shares_of_products,
    specs_of,
)
from torch import Tensor

from runner.engine.bounds import quadratic
from runner.engine.bounds.boxes import BoxPropagator
from runner.engine.bounds.curved import (
    MOST_VARIABLES,
    Curved,
    CurvedBounds,
    curved_bounds,
    curves,
)
from runner.engine.bounds.form import Form
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.quadratic import (
    Least,
    Quadratics,
    greatest_least,
    linear_margins,
    quadratics,
)
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op

FLOAT = torch.float64


def rows_of(
    network: SmallNetwork, box: Interval, rows: Tensor, thresholds: Tensor
) -> tuple[Tensor, Least]:
    """Over every box: margins of rows by lines alone, and of the best mix of all."""
    bounds = curved_bounds(network.bound(), box)
    count = len(box.lower)
    rows, thresholds = rows.to(FLOAT), thresholds.to(FLOAT)
    many = rows.expand(count, -1, -1), thresholds.expand(count, -1)
    curved = quadratics(bounds, *many, torch.arange(count))
    best = greatest_least(curved, torch.ones(many[1].shape, dtype=torch.bool))
    return linear_margins(bounds, rows, thresholds), best


@examples(60)
@given(
    st.sampled_from([multiplied, shares_of_products]),
    st.integers(0, 2**16),
    st.sampled_from([0.0, 1e-6, 0.1, 1.0, 30.0]),
)
def test_no_point_of_a_box_is_below_its_curved_bounds(
    made: Callable[[int], SmallNetwork], seed: int, radius: float
) -> None:
    network = made(seed)
    box = box_of(network, radius, batch=4, seed=seed)
    rows, thresholds = specs_of(network, 3, seed)[:3], torch.tensor([0.5, -1.0, 0.0])
    linear, best = rows_of(network, box, rows, thresholds)
    known = best.lower > -torch.inf  # an exponential that overflows leaves nothing
    assert (best.weights[known] >= 0).all()
    for x in points_in(box.to(FLOAT), 64, seed):
        above = network.outputs(x) @ rows.to(FLOAT).T - thresholds.to(FLOAT)
        room = 1e-12 * (1 + network.outputs(x).abs() @ rows.to(FLOAT).abs().T)
        assert (linear <= above + room).all()
        assert (best.lower <= ((above + room) * best.weights).sum(1))[known].all()


@examples(40)
@given(st.data())
def test_forms_with_a_variable_for_each_error_hold_through_every_operator(
    data: st.DataObject,
) -> None:
    network = data.draw(networks())
    box = data.draw(boxes(network.graph.input.shape))
    found = curved_bounds(network.bound(), box).output.interval
    for x in points_in(box.to(FLOAT), 16):
        values = network.outputs(x)
        room = 1e-12 * (1 + values.abs())
        assert (found.lower.flatten(1) <= values + room).all()
        assert (found.upper.flatten(1) >= values - room).all()


@pytest.mark.parametrize("exponent", [0, 4, 8])
def test_bounds_hold_where_large_values_cancel(exponent: int) -> None:
    """(x + s)² - (x - s)² = 4 s x: what is left of squares of about s²."""
    shift = 10.0**exponent
    builder = Builder((1,))
    ends = builder.linear_of("x", torch.ones(2, 1), torch.tensor([shift, -shift]))
    squares = builder.pointwise(Op.SQUARE, ends)
    network = builder.network(
        builder.linear_of(squares, torch.tensor([[1.0, -1.0]]), torch.zeros(1))
    )
    box = Interval(torch.tensor([[0.25]]), torch.tensor([[0.5]]))
    _, best = rows_of(network, box, torch.ones(1, 1), torch.zeros(1))
    least = 4 * float(torch.tensor(shift)) * 0.25
    assert float(best.lower) <= least
    assert float(best.lower) == pytest.approx(least, abs=1e-12 * shift**2 + 1e-9)


def test_what_bends_upwards_is_bounded_by_its_least_value() -> None:
    network = lyapunov(1.0, 0.3, 0.1)
    box = Interval(torch.tensor([[0.2, -1.0, -1.0]]), torch.tensor([[1.0, 1.0, 1.0]]))
    linear, best = rows_of(network, box, torch.ones(1, 1), torch.zeros(1))
    least = min(float(network.outputs(x).min()) for x in points_in(box, 4000))
    assert float(best.lower) == pytest.approx(least, abs=0.02)
    propagator = BoxPropagator(network.bound(), NoTagger())
    plain = propagator.rows(
        propagator.bound(box, {}), torch.ones(1, 1, dtype=FLOAT), torch.tensor([0])
    )
    assert float(linear) < -0.1
    assert float(plain.lower) < -0.1


def test_what_bends_downwards_is_charged_and_told_by_input() -> None:
    network = lyapunov(-1.0, -1.0)
    box = Interval(torch.tensor([[-1.0, -0.1]]), torch.tensor([[1.0, 0.1]]))
    _, best = rows_of(network, box, torch.ones(1, 1), torch.zeros(1))
    assert float(best.lower) == pytest.approx(-1.01, abs=1e-5)
    assert best.loose.tolist()[0] == pytest.approx([1.0, 0.01], abs=1e-5)


def test_two_rows_exclude_together_what_none_excludes_alone() -> None:
    """x² >= 1 and x² + y <= 0.5 do not meet where y >= 0: neither is false by itself."""
    builder = Builder((2,))
    square = builder.pointwise(Op.SQUARE, builder.linear_of("x", torch.eye(2)[:1], torch.zeros(1)))
    both = builder.concat(0, square, "x")
    outputs = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    network = builder.network(builder.linear_of(both, outputs, torch.zeros(2)))
    box = Interval(torch.tensor([[-2.0, 0.0]]), torch.tensor([[2.0, 1.0]]))
    rows, thresholds = torch.eye(2), torch.tensor([-1.0, 0.5])
    alone = [rows_of(network, box, rows[[k]], thresholds[[k]])[1] for k in (0, 1)]
    together = rows_of(network, box, rows, thresholds)[1]
    assert all(float(one.lower) < 0 for one in alone)
    assert float(together.lower) > 0


@examples(60)
@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(0, 3))
def test_no_variables_are_below_the_least_of_any_quadratics(
    seed: int, inputs: int, others: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=FLOAT)

    bent = inputs + others
    square = random(5, 2, bent, bent)
    rows = Quadratics(
        random(5, 2), random(5, 2, bent + 1), (square + square.transpose(2, 3)) / 2, inputs
    )
    best = greatest_least(rows, torch.ones((5, 2), dtype=torch.bool))
    points = torch.cat((random(2000, bent + 1).clamp(-1, 1), random(2000, bent + 1).sign()))
    linear = torch.einsum("mkv,pv->mkp", rows.linear, points)
    curved = torch.einsum("pa,mkab,pb->mkp", points[:, :bent], rows.square, points[:, :bent])
    values = rows.constant.unsqueeze(2) + linear + curved
    mixed = (best.weights.unsqueeze(2) * values).sum(1)
    assert (best.lower <= mixed.amin(1) + 1e-9).all()


def test_a_bad_search_proves_less_and_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands for what bends upwards, and wherever the least point is sought."""
    network = lyapunov(1.0, -0.5)
    box = box_of(network, 0.7)
    good = rows_of(network, box, torch.ones(1, 1), torch.zeros(1))[1].lower
    least = min(float(network.outputs(x.to(FLOAT)).min()) for x in points_in(box, 2000))
    for factor in (0.0, 3.0):
        monkeypatch.setattr(
            quadratic, "_upward", lambda square, factor=factor: factor * torch.ones_like(square)
        )
        monkeypatch.setattr(quadratic, "_descended", lambda linear, convex, start: start + 5.0)
        bad = rows_of(network, box, torch.ones(1, 1), torch.zeros(1))[1].lower
        assert float(bad) <= float(good) <= least + 1e-9


def test_nothing_is_proved_of_what_overflows() -> None:
    builder = Builder((2,))
    large = builder.linear_of("x", 1e38 * torch.eye(2), torch.zeros(2))
    for _ in range(4):
        large = builder.pointwise(Op.SQUARE, large)
    network = builder.network(builder.linear(large, 1))
    box = Interval(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 2.0]]))
    linear, best = rows_of(network, box, torch.ones(1, 1), torch.zeros(1))
    assert float(linear) == float(best.lower) == -torch.inf


def test_a_row_of_which_nothing_is_known_does_not_spoil_the_others() -> None:
    some = torch.zeros(1, 2, 1, 1, dtype=FLOAT)
    rows = Quadratics(torch.tensor([[-torch.inf, 1.0]]).to(FLOAT), some[..., 0], some, 1)
    assert float(greatest_least(rows, torch.ones((1, 2), dtype=torch.bool)).lower) > 0.9
    none = replace(rows, constant=torch.full((1, 2), -torch.inf, dtype=FLOAT))
    assert float(greatest_least(none, torch.ones((1, 2), dtype=torch.bool)).lower) == -torch.inf


def test_networks_with_products_and_few_variables_have_curves() -> None:
    assert curves(multiplied(0).graph)
    assert not curves(mlp(3, 8, 8, 2).graph)
    assert not curves(multiplied(0, inputs=MOST_VARIABLES).graph)


def test_a_product_that_the_output_does_not_see_leaves_the_input_alone() -> None:
    """As behind a softmax, whose output is an error between its bounds."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    form = Form((0,), one, torch.zeros(1, 1).double(), torch.zeros(1, 1).double())
    hidden = Curved((0,), one, one, torch.ones(1, 1).double(), first=1)
    rows = quadratics(
        CurvedBounds(form, (hidden,), inputs=1), one, torch.zeros(1, 1).double(), torch.tensor([0])
    )
    assert rows.linear[0, 0].tolist() == [1.0, 0.0]
    assert not rows.square.any()
