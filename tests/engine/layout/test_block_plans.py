"""Laws of the plan that gives every block of every weight to one rank."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from runner.engine.layout.block_owners import plan_blocks
from runner.engine.network import blocks
from runner.engine.network.blocks import WeightShape, cut_weights, weights_of
from runner.engine.network.graph import Graph, Node, Op

lengths = st.integers(1, 3000)
kernels = st.sampled_from([(), (1, 1), (3, 3), (5, 2)])


@st.composite
def weights(draw: st.DrawFn) -> list[WeightShape]:
    count = draw(st.integers(1, 6))
    return [
        WeightShape(
            f"w{index}", (draw(lengths), draw(lengths), *draw(kernels)), draw(st.booleans())
        )
        for index in range(count)
    ]


@given(weights(), st.integers(1, 9))
def test_blocks_tile_every_weight(weights: list[WeightShape], owners: int) -> None:
    plan = plan_blocks(weights, owners)
    assert list(plan) == [weight.name for weight in weights]
    for weight in weights:
        parts = plan[weight.name]
        assert [parts[0].start, *(b.stop for b in parts)] == [
            *(b.start for b in parts),
            weight.shape[1],
        ]
        assert parts[0].start == 0
        assert all(block.start < block.stop for block in parts)
        assert sum(block.bytes for block in parts) == weight.bytes
        if weight.whole:
            assert len(parts) == 1


@given(weights(), st.integers(1, 9))
def test_loads_are_within_one_block_of_each_other(weights: list[WeightShape], owners: int) -> None:
    plan = plan_blocks(weights, owners)
    load = Counter(dict.fromkeys(range(owners), 0))
    for parts in plan.values():
        for block in parts:
            load[block.owner] += block.bytes
    assert set(load) == set(range(owners))
    largest = max(block.bytes for parts in plan.values() for block in parts)
    assert max(load.values()) - min(load.values()) <= largest


@given(weights(), st.integers(1, 9))
def test_cuts_do_not_depend_on_the_number_of_owners(
    weights: list[WeightShape], owners: int
) -> None:
    """Or else the sums of a product, and its last bits, would."""
    one, many = plan_blocks(weights, 1), plan_blocks(weights, owners)
    for name in one:
        assert [(b.start, b.stop) for b in one[name]] == [(b.start, b.stop) for b in many[name]]
    assert one == plan_blocks(weights, 1)
    assert {block.owner for parts in one.values() for block in parts} == {0}


@given(weights())
def test_a_block_is_within_the_limits_or_one_column(weights: list[WeightShape]) -> None:
    """Twice as much for a convolution's channels, which fill vectors."""
    total = sum(weight.bytes for weight in weights)
    whole = {weight.name for weight in weights if weight.whole}
    channels = {weight.name for weight in weights if len(weight.shape) > 2}
    for cut in cut_weights(weights):
        if cut.weight not in whole and cut.stop - cut.start > 1:
            wanted = max(total // blocks.BLOCKS_WANTED, blocks.LEAST_BLOCK_BYTES)
            assert cut.bytes <= blocks.GREATEST_BLOCK_BYTES
            assert cut.bytes <= (2 if cut.weight in channels else 1) * wanted


@given(weights())
def test_channels_of_a_convolution_fill_vectors_where_that_is_no_more_than_twice_as_much(
    weights: list[WeightShape],
) -> None:
    total = sum(weight.bytes for weight in weights)
    wanted = max(total // blocks.BLOCKS_WANTED, blocks.LEAST_BLOCK_BYTES)
    plan = plan_blocks(weights, 1)
    for weight in weights:
        column = weight.bytes // weight.shape[1]
        fits = 8 * column <= wanted and 16 * column <= blocks.GREATEST_BLOCK_BYTES
        if len(weight.shape) > 2 and not weight.whole and fits:
            lengths = [block.stop - block.start for block in plan[weight.name]]
            assert all(length % blocks.LANES == 0 for length in lengths[:-1])


def test_a_weight_that_two_nodes_share_is_planned_once_and_a_grouped_one_is_whole() -> None:
    shared = {"weight": "w", "bias": "b"}
    grouped = {"weight": "k", "bias": "b"}
    nodes = (
        Node("x", Op.INPUT, (), (4,)),
        Node("one", Op.LINEAR, ("x",), (4,), {}, shared),
        Node("two", Op.LINEAR, ("one",), (4,), {}, shared),
        Node("three", Op.CONV, ("two",), (4, 1, 1), {"groups": 2}, grouped),
    )
    shapes = {"w": (4, 4), "k": (4, 2, 1, 1)}
    found = weights_of(Graph(nodes, "three"), shapes.__getitem__)
    assert found == [WeightShape("w", (4, 4), False), WeightShape("k", (4, 2, 1, 1), True)]
