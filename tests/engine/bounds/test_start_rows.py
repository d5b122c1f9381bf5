"""Which neurons have rows of their own: those whose bounds are wanted, each once, in all boxes."""

from __future__ import annotations

import pytest
import torch
from small_networks import box_of, mlp
from sound_bounds import counted_rows

from runner.contract.vocabulary import Method
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.refinement import Refinement
from runner.engine.bounds.start_rows import StartRows

BOXES = 2
SETTINGS = Settings(Method.IBP, row_block=8)


def known(radius: float = 0.3) -> tuple[StartRows, NetworkBounds]:
    """What interval bounds leave."""
    network = mlp(4, 12, 40, 40, 3)
    driver = Propagator(network.bound(), SETTINGS)
    return driver.starts, driver.bound(box_of(network, radius, batch=BOXES))


def test_they_are_the_neurons_whose_sign_some_box_leaves_open() -> None:
    starts, bounds = known()
    for node in starts.nodes:
        interval = bounds.intervals[node.name]
        open_ = ((interval.lower < 0) & (interval.upper > 0)).any(0)
        found = starts.neurons(node.name, interval, bounds)
        assert 0 < len(found) < node.size
        assert torch.equal(found, open_.flatten().nonzero()[:, 0])
        assert starts.count(node.name, bounds) == BOXES * len(found)


def test_none_are_left_where_the_box_is_a_point() -> None:
    starts, bounds = known(radius=0.0)
    assert [starts.count(node.name, bounds) for node in starts.nodes] == [0] * len(starts.nodes)
    assert starts.work(bounds) == 0
    assert starts.blocks(torch.zeros(0, dtype=torch.long)) == []


def test_what_is_not_wanted_and_what_is_settled_has_none() -> None:
    starts, bounds = known()
    node = starts.nodes[-1]
    interval = bounds.intervals[node.name]
    every = starts.neurons(node.name, interval, bounds)
    first, second = torch.zeros(2, node.size, dtype=torch.bool)
    first[every[:5]], second[every[3:]] = True, True
    fewer = StartRows(starts.network, starts.settings, Refinement({node.name: first}))
    assert torch.equal(fewer.neurons(node.name, interval, bounds), every[:5])
    bounds.settled[node.name] = second
    assert torch.equal(fewer.neurons(node.name, interval, bounds), every[:3])


def test_nodes_that_keep_their_interval_bounds_are_none() -> None:
    starts, bounds = known()
    first, last = (node.name for node in starts.nodes)
    fewer = StartRows(starts.network, Settings(interval_only=frozenset({first})))
    assert [node.name for node in fewer.nodes] == [last]
    assert fewer.work(bounds) < starts.work(bounds)


def test_blocks_hold_every_neuron_once_and_no_more_rows_than_may_exist() -> None:
    starts, _ = known()
    neurons = torch.arange(37)
    blocks = starts.blocks(neurons)
    assert torch.equal(torch.cat(blocks), neurons)
    assert len(blocks) > 1
    assert all(2 * len(block) <= SETTINGS.row_block for block in blocks)


def test_the_driver_begins_as_many_where_nothing_more_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts, bounds = known()
    begun = counted_rows(monkeypatch)
    first, last = (node.name for node in starts.nodes)
    settings = Settings(Method.CROWN, interval_only=frozenset({last}), forward_share=0.0)
    Propagator(starts.network, settings).bound(bounds.box)
    assert BOXES * sum(count for _, count in begun) == starts.count(first, bounds) > 0
