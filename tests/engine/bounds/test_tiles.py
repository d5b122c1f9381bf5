"""How rows are cut: even numbers of tiles, within limits, from the network alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import SmallNetwork, cnn, mlp

from runner.contract.vocabulary import Method
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.tiles import (
    CACHED_ROWS,
    LEAST_ROWS,
    LEAST_VALUES,
    TILES_WANTED,
    row_block,
    tiles,
)

NETWORKS = {"narrow": mlp(8, 16, 4), "wide": mlp(3072, 4, 4), "cnn": cnn(channels=8, size=16)}


@given(st.sampled_from(list(NETWORKS)), st.integers(1, 20_000), st.integers(2, 512))
def test_tiles_keep_to_the_limit_and_two_ranks_have_the_same_work(
    name: str, rows: int, most: int
) -> None:
    graph = NETWORKS[name].graph
    count = tiles(rows, most, graph, CORE)
    assert -(-rows // count) <= most
    assert count == 1 or count % 2 == 0
    widest = max(node.size for node in graph.nodes)
    if count == 1:
        assert rows <= CACHED_ROWS
        assert rows * widest < 2 * LEAST_VALUES


@given(st.sampled_from(list(NETWORKS)), st.integers(1, 20_000), st.integers(0, 12))
def test_more_memory_for_work_never_cuts_rows_smaller(name: str, rows: int, doublings: int) -> None:
    graph = NETWORKS[name].graph
    counts = [
        tiles(rows, row_block(graph, budget), graph, budget)
        for budget in (Budget(2**20 << doublings), Budget(2**21 << doublings))
    ]
    # An odd number that grows even, or one tile that pays to be halved, is one more.
    assert counts[1] <= counts[0] + 1


@pytest.mark.parametrize("method", [Method.CROWN, Method.ALPHA_CROWN])
def test_memory_for_work_changes_bounds_by_rounding_only(method: Method) -> None:
    network = mlp(8, 300, 40, 4)
    box = Interval(torch.full((1, 8), -0.1), torch.full((1, 8), 0.1))
    found = []
    for budget in (CORE, Budget(CORE.bytes // 64), Budget(64 * CORE.bytes)):
        settings = Settings(
            method, row_block(network.graph, budget), AlphaSettings(3), budget=budget
        )
        propagator = Propagator(network.bound(), settings)
        found.append(propagator.spec_bounds(propagator.bound(box), torch.eye(4)))
    for other in found[1:]:
        assert torch.allclose(other, found[0], rtol=1e-4, atol=1e-4)


@given(st.sampled_from(list(NETWORKS)), st.integers(1, 2**33))
def test_a_block_has_both_sides_of_its_neurons_whatever_the_memory(name: str, memory: int) -> None:
    rows = row_block(NETWORKS[name].graph, Budget(memory))
    assert rows % 2 == 0
    assert rows >= LEAST_ROWS


def test_few_rows_of_a_small_network_are_one_tile() -> None:
    assert tiles(60, 512, NETWORKS["narrow"].graph, CORE) == 1
    assert tiles(9, 512, NETWORKS["wide"].graph, CORE) == 2


def test_many_rows_are_about_as_many_tiles_as_are_wanted() -> None:
    for network in NETWORKS.values():
        assert TILES_WANTED <= tiles(8 * 512, 512, network.graph, CORE) <= TILES_WANTED + 1


def test_tiles_are_no_shorter_than_is_asked_for() -> None:
    graph = NETWORKS["wide"].graph
    assert tiles(1024, 256, graph, CORE, least_rows=256) == 4 < tiles(1024, 256, graph, CORE)
    assert tiles(1024, 128, graph, CORE, least_rows=256) == 8


def test_a_convolution_has_tiles_that_fit_a_cache_and_a_large_matrix_has_longer_ones() -> None:
    def length(network: SmallNetwork) -> int:
        return 256 // tiles(256, row_block(network.graph, CORE), network.graph, CORE)

    assert length(NETWORKS["wide"]) == 64
    assert length(mlp(3072, 512, 4)) == 128
