"""How rows are cut: even numbers of tiles, within limits, from the network alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from small_networks import SmallNetwork, cnn, mlp

from runner.bounds.tiles import CACHED_ROWS, LEAST_VALUES, TILES_WANTED, row_block, tiles

NETWORKS = {"narrow": mlp(8, 16, 4), "wide": mlp(3072, 4, 4), "cnn": cnn(channels=8, size=16)}


@given(st.sampled_from(list(NETWORKS)), st.integers(1, 20_000), st.integers(2, 512))
def test_tiles_keep_to_the_limit_and_two_ranks_have_the_same_work(
    name: str, rows: int, most: int
) -> None:
    graph = NETWORKS[name].graph
    count = tiles(rows, most, graph)
    assert -(-rows // count) <= most
    assert count == 1 or count % 2 == 0
    widest = max(node.size for node in graph.nodes)
    if count == 1:
        assert rows <= CACHED_ROWS
        assert rows * widest < 2 * LEAST_VALUES


def test_few_rows_of_a_small_network_are_one_tile() -> None:
    assert tiles(60, 512, NETWORKS["narrow"].graph) == 1
    assert tiles(9, 512, NETWORKS["wide"].graph) == 2


def test_many_rows_are_about_as_many_tiles_as_are_wanted() -> None:
    for network in NETWORKS.values():
        assert TILES_WANTED <= tiles(8 * 512, 512, network.graph) <= TILES_WANTED + 1


def test_a_convolution_has_tiles_that_fit_a_cache_and_a_large_matrix_has_longer_ones() -> None:
    def length(network: SmallNetwork) -> int:
        return 256 // tiles(256, row_block(network.graph), network.graph)

    assert length(NETWORKS["wide"]) == 64
    assert length(mlp(3072, 512, 4)) == 128
