"""Rows of the last layer end once they cannot tell more, and hold as all others do."""

from __future__ import annotations

import pytest
import torch
from small_networks import CPU, Builder, SmallNetwork, box_of, mlp, points_in
from sound_bounds import counted_rows

from runner.contract.vocabulary import Method
from runner.engine.bounds.last_rows import LastRows
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.refinement import Refinement
from runner.engine.network.graph import Op
from runner.engine.specs import Specs

SETTINGS = Settings(Method.CROWN, forward_share=0.0)


def last_of(network: BoundNetwork) -> LastRows:
    found = LastRows.of(network, frozenset(network.start_nodes - network.exact))
    assert found is not None
    return found


def specs_above(limits: list[float], disjuncts: list[int] | None = None) -> Specs:
    """Output i exceeds limits[i]."""
    count = len(limits)
    values = torch.tensor(limits, dtype=torch.float64)
    numbers = torch.tensor(disjuncts if disjuncts is not None else range(count))
    return Specs(torch.eye(count).double(), values, values, numbers, int(numbers.max()) + 1)


def both(network: SmallNetwork, radius: float) -> tuple[BoundNetwork, NetworkBounds, NetworkBounds]:
    """Bounds with all rows, and with all but those of the last layer."""
    bound, box = network.bound(), box_of(network, radius)
    whole = Propagator(bound, SETTINGS).bound(box)
    driver = Propagator(bound, SETTINGS, refinement=last_of(bound).none(CPU))
    return bound, whole, driver.bound(box)


def lower(network: BoundNetwork, bounds: NetworkBounds, specs: Specs) -> torch.Tensor:
    return Propagator(network, SETTINGS).spec_bounds(bounds, specs.rows)[:, 0]


def test_rows_of_one_layer_alone_give_what_all_at_once_would() -> None:
    network, whole, rest = both(mlp(4, 20, 20, 3, seed=3), 0.7)
    last = last_of(network)
    assert not torch.equal(whole.intervals[last.name].lower, rest.intervals[last.name].lower)
    again = Propagator(network, SETTINGS, refinement=Refinement()).again(last.name, rest)
    for name, interval in whole.intervals.items():
        assert torch.equal(interval.lower, again.intervals[name].lower), name
        assert torch.equal(interval.upper, again.intervals[name].upper), name
    # What it was made from is as it was.
    assert not torch.equal(whole.intervals[last.name].lower, rest.intervals[last.name].lower)


@pytest.mark.parametrize("room", [-1e3, 1e3])
def test_where_specs_hold_or_cannot_no_row_is_taken(
    monkeypatch: pytest.MonkeyPatch, room: float
) -> None:
    network, _, rest = both(mlp(4, 20, 20, 3, seed=3), 0.7)
    rows = counted_rows(monkeypatch)
    driver = Propagator(network, SETTINGS)
    found = last_of(network).bound(driver, rest, specs_above([room] * 3))
    assert found is rest
    assert sum(count for _, count in rows) == 0


def test_one_disjunct_that_cannot_hold_is_enough_to_end() -> None:
    network, whole, rest = both(mlp(4, 20, 20, 3, seed=3), 0.7)
    least = lower(network, whole, specs_above([0.0] * 3)).tolist()
    driver, last = Propagator(network, SETTINGS), last_of(network)
    assert last.bound(driver, rest, specs_above([1e3, *least[1:]])) is rest
    alike = specs_above([1e3, least[1] - 1e-3, least[2]], [0, 0, 1])
    assert last.bound(driver, rest, alike) is not rest  # any row of a disjunct will do


def test_specs_that_all_rows_prove_are_proved() -> None:
    """Seldom by all of them; and what is known of the last layer holds."""
    fewer = 0
    for seed in range(8):
        small = mlp(4, 20, 20, 2, seed=seed)
        network, whole, rest = both(small, 0.7)
        at_best, before = (lower(network, b, specs_above([0.0] * 2)) for b in (whole, rest))
        limits = (before + 0.9 * (at_best - before)).tolist()
        last, driver = last_of(network), Propagator(network, SETTINGS)
        found = last.bound(driver, rest, specs_above(limits))
        assert (lower(network, found, specs_above(limits)) > torch.tensor(limits)).all(), seed
        mine, most = found.intervals[last.name], whole.intervals[last.name]
        values = small.values(points_in(found.box.to(torch.float64), 300)[:, 0])[last.name]
        assert (mine.lower <= values + 1e-9).all()
        assert (mine.upper >= values - 1e-9).all()
        fewer += not torch.equal(mine.lower, most.lower)
    assert fewer


def test_only_relus_behind_which_all_is_linear_have_last_rows() -> None:
    builder = Builder((3,))
    hidden = builder.pointwise(Op.RELU, builder.linear("x", 5))
    smooth = builder.pointwise(Op.SIGMOID, builder.linear(hidden, 5))
    network = builder.network(builder.linear(smooth, 1)).bound()
    assert LastRows.of(network, frozenset(network.start_nodes)) is None
    builder = Builder((3,))
    shared = builder.linear(builder.pointwise(Op.RELU, builder.linear("x", 5)), 5)
    both_ways = builder.add(Op.ADD, (shared, builder.pointwise(Op.RELU, shared)), (5,))
    network = builder.network(builder.linear(both_ways, 1)).bound()
    assert LastRows.of(network, frozenset(network.start_nodes)) is None
    builder = Builder((3,))
    network = builder.network(builder.linear("x", 1)).bound()
    assert LastRows.of(network, frozenset(network.start_nodes)) is None


def test_a_layer_of_which_nothing_is_known_has_all_its_rows() -> None:
    """Infinite bounds have no costs to compare."""
    network, whole, rest = both(mlp(4, 20, 20, 2, seed=1), 0.7)
    last = last_of(network)
    for name in rest.intervals:
        if name == last.name:
            ends = rest.intervals[name].lower
            nothing = torch.full_like(ends, torch.inf)
            rest.intervals[name] = rest.intervals[name].between(-nothing, nothing)
    limits = (lower(network, whole, specs_above([0.0] * 2)) - 1e-3).tolist()
    found = last.bound(Propagator(network, SETTINGS), rest, specs_above(limits))
    assert found.intervals[last.name].lower.isfinite().all()
    assert (lower(network, found, specs_above(limits)) > torch.tensor(limits)).all()
