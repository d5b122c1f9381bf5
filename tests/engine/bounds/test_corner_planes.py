"""Planes at corners lie above ReLUs and touch them there, and tighten what rows of forms say as far
as corners are foreseen; no point contradicts what they prove.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import SmallNetwork, box_of, mlp, points_in
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds import corner_planes
from runner.engine.bounds import folded as folding
from runner.engine.bounds.budget import CORE
from runner.engine.bounds.corner_planes import CornerForms, CornerPlanes, CornerRows, LayerForms
from runner.engine.bounds.folded import folded
from runner.engine.bounds.form_network import FormNetwork
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.relu import ReluLines
from runner.engine.bounds.tagging import NoTagger

DTYPES = st.sampled_from([torch.float32, torch.float64])


@st.composite
def upper_forms(draw: st.DrawFn) -> tuple[Tensor, LayerForms]:
    """Of k neurons [k, d + 1] over |y| <= 1, of many sizes, some with no slope at all, and some of
    one sign; all are open as far as their bounds say.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    neurons, inputs, dtype = draw(st.integers(1, 12)), draw(st.integers(1, 8)), draw(DTYPES)
    forms = torch.randn((neurons, inputs + 1), generator=generator, dtype=torch.float64)
    forms *= 10.0 ** torch.randint(-6, 4, (neurons, 1), generator=generator)
    forms[:, :-1] *= torch.rand((neurons, inputs), generator=generator) < 0.7
    interval = Interval(torch.full((1, neurons), -1.0), torch.full((1, neurons), 1.0)).to(dtype)
    zeros = torch.zeros(neurons, dtype=dtype)
    lines = ReluLines.over(interval)
    return forms, LayerForms(zeros[:, None], zeros, zeros, lines, interval)


def planes_of(planes: CornerPlanes, corner: Tensor) -> Tensor:
    """Slopes [k, d] of the plane of each neuron for one corner [d]."""
    given_alone = -torch.eye(len(planes.open), dtype=planes.slopes.dtype)
    return -planes.passed(given_alone, corner.expand(len(planes.open), -1)).to(torch.float64)


@given(upper_forms(), st.integers(0, 2**16))
@examples(60)
def test_planes_lie_above_relus_of_forms_and_touch_them_at_their_corner(
    made: tuple[Tensor, LayerForms], seed: int
) -> None:
    forms, layer = made
    planes = CornerPlanes.above(forms, layer)
    generator = torch.Generator().manual_seed(seed)
    inputs, dtype = forms.shape[1] - 1, planes.slopes.dtype
    corners = torch.randint(0, 2, (200, inputs), generator=generator).to(torch.float64) * 2 - 1
    found = planes_of(planes, corners[0].to(dtype))
    points = torch.cat((corners, torch.rand((100, inputs), generator=generator).double() * 2 - 1))
    above = points @ found.T + planes.costs[:, 0].to(torch.float64)
    values = points @ forms[:, :-1].T + forms[:, -1]
    sizes = forms.abs().sum(1)
    # Rows are charged for their own sums, which these are.
    lost = 4 * inputs * torch.finfo(dtype).eps * sizes
    assert (above + lost >= values).all()
    assert (above + lost >= 0).all()
    assert (above[0] - values[0].relu() <= 3e-4 * sizes).all()
    assert (found.abs().sum(1) + planes.costs[:, 0] <= planes.costs[:, 1] + lost).all()


@pytest.mark.parametrize("ends", [(100.0, 100.01), (-1.0, 1.0)])
@given(upper_forms(), st.integers(0, 2**16))
@examples(40)
def test_rows_say_no_more_than_planes_whatever_rounds(
    ends: tuple[float, float], made: tuple[Tensor, LayerForms], seed: int
) -> None:
    """Far from 0, where slopes of x and constants are large; and near it, where slopes cancel."""
    forms, layer = made
    mirrored = torch.cat((-forms[:, :-1], forms[:, -1:]), 1)
    both = replace(layer, lines=ReluLines(*(torch.cat((x, x), 1) for x in lines_of(layer))))
    planes, dtype = CornerPlanes.above(torch.cat((forms, mirrored)), both), layer.weight.dtype
    neurons, inputs = 2 * len(forms), forms.shape[1] - 1
    of_box = CornerForms.of(Interval(*(torch.full((1, inputs), end, dtype=dtype) for end in ends)))
    assert of_box is not None
    of_box.planes.append(planes)
    # No form tells of a corner here: all rows have the same one.
    zeros = torch.zeros((neurons, inputs + 1), dtype=torch.float64)
    of_box.below, of_box.above = (torch.cat((part, zeros)) for part in (of_box.below, of_box.above))
    generator = torch.Generator().manual_seed(seed)
    given_rows = -torch.rand((50, neurons), generator=generator, dtype=dtype)
    columns = torch.cat((given_rows.new_zeros((50, inputs)), given_rows), 1)
    rows = CornerRows(of_box, columns, 4)
    assert not rows.take(0, given_rows).any()
    rows.put(columns)
    y = torch.rand((50, inputs), generator=generator).double() * 2 - 1
    x = of_box.middle.double() + y * of_box.radius.double()
    said = x @ columns[:, :inputs].double().T + (rows.constant.double() - rows.error.double())
    slopes = planes_of(planes, rows.corner[0])
    exact = (y @ slopes.T + planes.costs[:, 0].double()) @ given_rows.double().T
    assert (said <= exact).all()


def lines_of(layer: LayerForms) -> tuple[Tensor, ...]:
    return layer.lines.lower_slope, layer.lines.upper_slope, layer.lines.upper_bias


def test_neurons_may_lie_off_their_forms_as_far_as_those_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forms = forms_of(monkeypatch, mlp(4, 30, 30, 2), 0.2)
    for off in (-0.02, 0.02):
        error = {name: form.error + abs(off) for name, form in forms.forms.items()}
        wide = {name: replace(form, error=error[name]) for name, form in forms.forms.items()}
        bounds = bounds_of(replace(forms, forms=wide))
        columns = points_in(forms.box.to(torch.float64), 500).flatten(0, 1)
        for relu in forms.relus:
            form, interval = forms.forms[relu.before], bounds.intervals[relu.before]
            values = columns @ form.weight.double().T + form.bias.double() + off
            assert (interval.lower <= values).all()
            assert (interval.upper >= values).all()
            columns = torch.cat((columns, values.relu()), 1)


def forms_of(monkeypatch: pytest.MonkeyPatch, network: SmallNetwork, radius: float) -> FormNetwork:
    monkeypatch.setattr(folding, "WORTH", 1e9)
    monkeypatch.setattr(folding, "MOST_OPEN", 1.0)
    bound, box = network.bound(), box_of(network, radius)
    known = Propagator(bound, Settings(Method.CROWN)).bound(box)
    made = folded(bound, box, known.intervals, CORE, NoTagger(), lambda: None)
    assert made is not None
    return made


def bounds_of(forms: FormNetwork) -> NetworkBounds:
    return Propagator(forms.network, Settings(Method.CROWN)).bound(forms.box)


def width(bounds: NetworkBounds, name: str) -> float:
    interval = bounds.intervals[name]
    return float((interval.upper - interval.lower).sum())


def test_rows_of_neurons_are_tighter_and_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    narrower = []
    for seed in range(6):
        network = mlp(4, 30, 30, 30, 2, seed=seed)
        forms = forms_of(monkeypatch, network, 0.2)
        with_planes, without = bounds_of(forms), bounds_of(replace(forms, corners=False))
        values = network.values(points_in(forms.box.to(torch.float64), 500).flatten(0, 1))
        first, second, *_ = forms.relus
        assert width(with_planes, first.before) == width(without, first.before)
        narrower.append(width(with_planes, second.before) / width(without, second.before))
        for relu in forms.relus:
            interval = with_planes.intervals[relu.before]
            reached = values[relu.before].flatten(1)[:, relu.at]
            assert (interval.lower <= reached + 1e-12).all()
            assert (interval.upper >= reached - 1e-12).all()
    assert max(narrower) < 1
    assert min(narrower) < 0.97


def test_rows_behind_what_is_not_foreseen_have_no_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = forms_of(monkeypatch, mlp(4, 30, 30, 2), 0.2)
    without = bounds_of(replace(forms, corners=False))
    monkeypatch.setattr(corner_planes, "FORESEEN", 0.0)
    for name, interval in bounds_of(forms).intervals.items():
        assert torch.equal(interval.lower, without.intervals[name].lower), name
        assert torch.equal(interval.upper, without.intervals[name].upper), name


def test_boxes_with_many_free_inputs_have_no_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    box = box_of(mlp(4, 3, 2), 0.1)
    found = CornerForms.of(box)
    assert found is not None
    assert len(found.free) == 4
    monkeypatch.setattr(corner_planes, "MOST_INPUTS", 3)
    assert CornerForms.of(box) is None
    fixed = Interval(box.lower, torch.cat((box.upper[:, :2], box.lower[:, 2:]), 1))
    some = CornerForms.of(fixed)
    assert some is not None
    assert some.free.tolist() == [0, 1]
