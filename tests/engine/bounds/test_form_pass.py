"""Rows of forms in one array of columns say what rows say that go node by node."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import box_of, mlp, points_in

from runner.contract.vocabulary import Method
from runner.engine.bounds import folded as folding
from runner.engine.bounds.backward import (
    Frontier,
    Shortcut,
    WholeCharges,
    advance,
    concretize,
    frontier_at,
    start_frontier,
)
from runner.engine.bounds.budget import CORE
from runner.engine.bounds.folded import folded
from runner.engine.bounds.form_network import FormNetwork
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.tagging import NoTagger

NETWORK = mlp(4, 24, 24, 16, 3)


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> FormNetwork:
    monkeypatch.setattr(folding, "WORTH", 1e9)
    monkeypatch.setattr(folding, "MOST_OPEN", 1.0)
    bounds = Propagator(NETWORK.bound(), Settings(Method.CROWN)).bound(box_of(NETWORK, 0.3))
    made = folded(NETWORK.bound(), bounds.box, bounds.intervals, CORE, NoTagger(), lambda: None)
    assert made is not None
    assert len(made.relus) == 3
    return made


def part_of(forms: FormNetwork) -> NetworkBounds:
    """Of a part of the box, where some of what was open is inactive, and some active."""
    box = forms.box
    part = Interval(box.lower, box.lower + (box.upper - box.lower) * 0.4)
    return Propagator(forms.network, Settings(Method.CROWN)).bound(part)


def starts(forms: FormNetwork, dtype: torch.dtype) -> dict[str, Frontier]:
    """Rows of some neurons of each layer, and of the outputs."""
    network = forms.network
    found = {
        relu.before: start_frontier(network, relu.before, torch.arange(len(relu.at)), 1, dtype)
        for relu in forms.relus
    }
    rows = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found[forms.output] = frontier_at(network, forms.output, rows)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_as_tight_as_those_that_go_node_by_node(
    forms: FormNetwork, dtype: torch.dtype
) -> None:
    forms = replace(forms, corners=False)
    network, bounds = forms.network, part_of(forms)
    assert isinstance(network, Shortcut)
    inactive = [(bounds.intervals[r.before].upper <= 0).sum() for r in forms.relus]
    assert sum(inactive) > 0
    driver = Propagator(network, Settings(Method.CROWN))
    mine = driver.in_precision(bounds, dtype)
    for name, start in starts(forms, dtype).items():
        charges = WholeCharges(network, mine.intervals)
        slow = advance(network, start, mine.lines, {}, charges)
        fast = network.back(start, mine.lines, mine.intervals)
        assert fast.todo == ()
        for charge in (True, False):
            one, other = (concretize(network, f, mine.box, charge=charge) for f in (slow, fast))
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5, msg=name)
        assert fast.error is not None
        assert (fast.error > 0).all()


def test_no_point_of_the_box_lies_below(forms: FormNetwork) -> None:
    network, bounds = forms.network, part_of(forms)
    x = points_in(bounds.box.to(torch.float64), 500).flatten(0, 1)
    values = NETWORK.values(x)
    assert isinstance(network, Shortcut)
    for relu in forms.relus:
        start = starts(forms, torch.float32)[relu.before]
        done = network.back(start, bounds.lines, bounds.intervals)
        lower = concretize(network, done, bounds.box, charge=True)[:, 0]
        reached = values[relu.before].flatten(1)[:, relu.at]
        assert (lower <= torch.cat((reached, -reached), 1).amin(0)).all()


def test_errors_of_forms_are_charged(forms: FormNetwork) -> None:
    """At least what rows of the outputs make of those of the outputs' own forms."""
    wide = {name: replace(f, error=f.error + 1e-3) for name, f in forms.forms.items()}
    off = replace(forms, forms=wide)
    bounds = part_of(off)
    (start,) = [s for name, s in starts(off, torch.float64).items() if name == forms.output]
    network = off.network
    assert isinstance(network, Shortcut)
    mine = Propagator(network, Settings(Method.CROWN)).in_precision(bounds, torch.float64)
    done = network.back(start, mine.lines, mine.intervals)
    assert done.error is not None
    rows = start.pending[forms.output].abs().sum((1, 2))
    assert (done.error[:, 0] >= 1e-3 * rows).all()
