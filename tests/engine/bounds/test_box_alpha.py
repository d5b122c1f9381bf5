"""Mixes of rows with slopes of their own: sound, no worse than CROWN; rows that go together."""

from __future__ import annotations

from fractions import Fraction

import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import SmallNetwork, boxes, mlp, networks, points_in, specs_of
from torch import Tensor

from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.box_alpha import Mixes, on_simplex
from runner.engine.bounds.boxes import BoxPropagator
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.tagging import NoTagger

SETTINGS = AlphaSettings(iterations=8, step=0.4)


def mixed(
    network: SmallNetwork, box: Interval, rows: Tensor, thresholds: Tensor
) -> tuple[Tensor, Tensor]:
    """Over every box, the margin of the best mix of all rows that is found, and its weights."""
    count = len(box.lower)
    propagator = BoxPropagator(network.bound(), NoTagger())
    mixes = Mixes(
        torch.arange(count),
        rows.double().expand(count, -1, -1),
        thresholds.double().expand(count, -1),
        torch.full((count, len(rows)), 1 / len(rows), dtype=torch.float64),
        torch.ones((count, len(rows)), dtype=torch.bool),
    )
    found, weights = propagator.mixed_rows(propagator.bound(box, {}), mixes, SETTINGS)
    return found.lower, weights


@examples(40)
@given(st.data())
def test_no_point_of_a_box_has_a_mix_below_its_margin(data: st.DataObject) -> None:
    network = data.draw(networks())
    box = data.draw(boxes(network.graph.input.shape))
    rows = specs_of(network, 3)[:3]
    thresholds = torch.tensor([0.5, -1.0, 0.0])
    lower, weights = mixed(network, box, rows, thresholds)
    assert (weights >= 0).all()
    for x in points_in(box, 16):
        outputs = network.outputs(x.double())
        above = (outputs @ rows.double().T - thresholds.double()) * weights
        size = (outputs.abs() @ rows.double().abs().T).sum(1)
        assert (lower <= above.sum(1) + 1e-9 * (1 + size)).all()


def test_slopes_that_are_searched_for_are_no_worse_than_the_adaptive_ones() -> None:
    network = mlp(3, 16, 16, 16, 2)
    lower = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    box = Interval(lower, lower + 0.7)
    row = specs_of(network, 1)[:1]
    propagator = BoxPropagator(network.bound(), NoTagger())
    plain = propagator.rows(
        propagator.bound(box, {}), row.double().repeat(6, 1), torch.arange(6)
    ).lower
    found, _ = mixed(network, box, row, torch.zeros(1))
    assert (found >= plain - 1e-5).all()
    assert (found > plain + 1e-3).any()


def test_rows_that_are_each_other_s_opposite_exclude_each_other() -> None:
    """y <= -1 and -y <= -1: no row alone excludes it, and half of each is 0 > -1 at once."""
    network = mlp(3, 16, 16, 1, seed=1)
    box = Interval(-torch.ones(1, 3), torch.ones(1, 3))
    rows, thresholds = torch.tensor([[1.0], [-1.0]]), torch.tensor([-1.0, -1.0]) * 0.01
    alone = [mixed(network, box, rows[[k]], thresholds[[k]])[0] for k in (0, 1)]
    assert max(float(margin) for margin in alone) < 0
    margin, weights = mixed(network, box, rows, thresholds)
    assert float(margin) > 0
    assert abs(float(weights[0, 0] - weights[0, 1])) < 1e-6


def test_projection_on_the_simplex_is_the_nearest_point() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    real = torch.ones(50, 4, dtype=torch.bool)
    real[::2, 3] = False
    found = on_simplex(values, real)
    assert torch.allclose(found.sum(1), torch.ones(50, dtype=torch.float64))
    assert (found >= 0).all()
    assert (found[~real] == 0).all()
    for _ in range(20):
        other = torch.rand(50, 4, generator=generator, dtype=torch.float64) * real
        other = other / other.sum(1, keepdim=True)
        gap = ((values - found) * real).square().sum(1) - ((values - other) * real).square().sum(1)
        assert (gap <= 1e-12).all()


def test_a_mix_of_thresholds_is_never_below_its_exact_value() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1, 5, 3, generator=generator, dtype=torch.float64) * 1e8
    thresholds = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    weights = torch.rand(1, 5, generator=generator, dtype=torch.float64)
    real = torch.ones(1, 5, dtype=torch.bool)
    mixes = Mixes(torch.zeros(1, dtype=torch.long), rows, thresholds, weights, real)
    y = torch.randn(3, generator=generator, dtype=torch.float64)
    exact = sum(
        Fraction(float(w)) * Fraction(float(t))
        for w, t in zip(weights[0], thresholds[0], strict=True)
    )
    mix, row = mixes.threshold(y.abs()[None]), mixes.row(weights)[0]
    true = sum(
        Fraction(float(weights[0, k])) * Fraction(float(rows[0, k, o])) * Fraction(float(y[o]))
        for k in range(5)
        for o in range(3)
    )
    computed = sum(Fraction(float(row[o])) * Fraction(float(y[o])) for o in range(3))
    # What is proved of the computed row says as much of the true one.
    assert Fraction(float(mix[0])) - exact >= computed - true
    assert Fraction(float(mix[0])) >= exact
