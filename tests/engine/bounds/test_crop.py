"""Rows that pass back what their neurons see say the same as rows of the whole image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_networks import Builder, SmallNetwork, box_of
from sound_bounds import assert_sound

from runner.contract.vocabulary import Method
from runner.engine.bounds import start_rows
from runner.engine.bounds.crop import Tile, tiles_of
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.network.graph import Op


def residual(builder: Builder) -> str:
    first = builder.conv("x", 4, padding=(1, 1))
    inner = builder.conv(builder.pointwise(Op.RELU, first), 4, (5, 3), padding=(2, 1))
    x = builder.pointwise(Op.ADD, inner, first)
    return builder.conv(builder.pointwise(Op.RELU, x), 3, padding=(1, 1))


def strided(builder: Builder) -> str:
    x = builder.pointwise(Op.TANH, builder.conv("x", 4, (4, 3), (2, 3), (1, 2)))
    x = builder.conv(x, 4, (2, 2), dilation=(2, 1), padding=(3, 0), groups=2)
    return builder.conv(builder.pointwise(Op.RELU, x), 3, padding=(1, 1))


def pooled(builder: Builder) -> str:
    x = builder.pointwise(Op.RELU, builder.conv("x", 4, padding=(1, 1)))
    x = builder.pool(Op.AVGPOOL, x, (2, 3), (2, 3), (0, 0))
    return builder.conv(builder.pointwise(Op.SIN, builder.conv(x, 4)), 3, padding=(1, 1))


def after_a_layer_that_sees_everything(builder: Builder) -> str:
    x = builder.linear(builder.flatten("x"), 3 * 12 * 12)
    x = builder.conv(builder.reshape(x, 3, 12, 12), 4, padding=(1, 1))
    return builder.conv(builder.pointwise(Op.RELU, x), 3, padding=(1, 1))


NETWORKS = [residual, strided, pooled, after_a_layer_that_sees_everything]


def network_of(make: Callable[[Builder], str]) -> SmallNetwork:
    builder = Builder((2, 24, 20), seed=3)
    x = builder.flatten(builder.pointwise(Op.RELU, make(builder)))
    return builder.network(builder.linear(x, 2))


def bounds_of(network: SmallNetwork, radius: float = 0.05) -> NetworkBounds:
    return Propagator(network.bound(), Settings(Method.CROWN)).bound(box_of(network, radius))


@pytest.fixture
def cropped(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """Tiles of whatever is local, worth it or not."""
    made: list[Tile] = []

    def noted(*arguments: object) -> list[Tile]:
        found = tiles_of(*arguments)  # type: ignore[arg-type]
        made.extend(found)
        return found

    monkeypatch.setattr("runner.engine.bounds.crop.WORTH", 1e9)
    monkeypatch.setattr(start_rows, "tiles_of", noted)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_bounds_are_those_of_whole_rows(
    make: Callable[[Builder], str], cropped: list[Tile], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(make)
    by_tiles = bounds_of(network)
    assert len(cropped) > 1
    monkeypatch.setattr(start_rows, "tiles_of", lambda *arguments: [])
    whole = bounds_of(network)
    for name, interval in whole.intervals.items():
        width = float((interval.upper - interval.lower).max())
        for found, wanted in (
            (by_tiles.intervals[name].lower, interval.lower),
            (by_tiles.intervals[name].upper, interval.upper),
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * width + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_hold(
    make: Callable[[Builder], str], dtype: torch.dtype, cropped: list[Tile]
) -> None:
    network = network_of(make)
    assert_sound(network, box_of(network, 0.05, batch=2), dtype)
    assert cropped


def test_tiles_hold_every_neuron_once_and_see_little() -> None:
    network = network_of(residual)
    bound = network.bound()
    (name, *_) = sorted(bound.start_nodes - bound.exact)
    neurons = torch.arange(0, network.graph.node(name).size, 3)
    tiles = tiles_of(bound, name, neurons, most=50)
    assert torch.cat([tile.neurons for tile in tiles]).sort().values.tolist() == neurons.tolist()
    assert max(len(tile.neurons) for tile in tiles) <= 50
    assert all(tile.network.graph.input.size < network.graph.input.size / 2 for tile in tiles)


def test_few_neurons_of_dense_layers_are_in_no_tiles() -> None:
    builder = Builder((40,))
    x = builder.pointwise(Op.RELU, builder.linear(builder.linear("x", 40), 40))
    network = builder.network(builder.linear(x, 3))
    bound = network.bound()
    for name in bound.start_nodes:
        assert tiles_of(bound, name, torch.arange(10), most=50) == []
