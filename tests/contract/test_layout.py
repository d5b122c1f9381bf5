"""The arithmetic of layouts: every rank in its place, whatever the degrees; the rest is refused."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.contract.errors import UsageError
from runner.contract.layout import AXES, Axis, Layout
from runner.contract.strategy import Strategy
from runner.contract.wire import from_json, to_json
from runner.verifiers.strategies import CHECKPOINT, STRATEGIES, strategy_named

DEGREES = st.integers(1, 4)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    cut = draw(st.sampled_from(["fsdp", "tp"]))
    return Layout(**{cut: draw(DEGREES)}, sp=draw(DEGREES), dp=draw(DEGREES))


@given(layouts())
def test_groups_along_and_beside_an_axis_share_out_all_ranks(layout: Layout) -> None:
    everybody = list(range(layout.ranks))
    for axis in Axis:
        along, beside = layout.along(axis), layout.beside(axis)
        for groups in (along, beside):
            assert sorted(rank for group in groups for rank in group) == everybody
            assert all(one < other for group in groups for one, other in pairwise(group))
        assert {len(group) for group in along} == {layout.degree(axis)}
        assert len(beside) == layout.degree(axis)
        # A group along an axis has one rank of each group beside it.
        for group in along:
            assert [layout.place(axis, rank) for rank in group] == list(range(len(group)))
            assert all(len(set(group) & set(other)) == 1 for other in beside)


@given(layouts())
def test_places_along_all_axes_tell_ranks_apart(layout: Layout) -> None:
    places = [tuple(layout.place(axis, rank) for axis in Axis) for rank in range(layout.ranks)]
    assert len(set(places)) == layout.ranks


@given(layouts().filter(lambda layout: layout.ranks > 1), st.randoms(), st.sampled_from("+,"))
def test_a_layout_is_read_in_any_order_and_has_one_name(
    layout: Layout, random: random.Random, between: str
) -> None:
    parts = str(layout).split("+")
    random.shuffle(parts)
    found = strategy_named(between.join(parts))
    assert (found.layout, found.name) == (layout, str(layout))
    assert found.ranks_of(2) == layout.ranks
    assert from_json(to_json(found), Strategy) == found


@given(st.sampled_from(sorted(STRATEGIES)), st.integers(1, 5))
def test_a_name_without_degrees_spreads_over_as_many_ranks_as_there_are(
    name: str, ranks: int
) -> None:
    strategy = STRATEGIES[name]
    assert strategy.ranks_of(ranks) == (ranks if strategy.parallel else 1)
    for axis in Axis:
        whole, apart = [list(range(ranks))], [[rank] for rank in range(ranks)]
        spread = axis in strategy.sharded
        assert list(map(list, strategy.along(axis, ranks))) == (whole if spread else apart)
        assert list(map(list, strategy.beside(axis, ranks))) == (apart if spread else whole)


@given(layouts())
def test_rows_are_shared_by_all_ranks_that_hold_the_same_part_of_the_network(
    layout: Layout,
) -> None:
    strategy = Strategy("any", layout.axes, layout)
    share, same = strategy.sharers(layout.ranks), strategy.beside_sharers(layout.ranks)
    assert {len(group) for group in share} == {layout.sp * layout.dp}
    assert {len(group) for group in same} == {layout.fsdp * layout.tp}
    for groups in (share, same):
        assert sorted(rank for group in groups for rank in group) == list(range(layout.ranks))
    assert all(len(set(group) & set(other)) == 1 for group in share for other in same)
    for cut in (Axis.WEIGHTS, Axis.FEATURES):
        for group in share:
            assert len({layout.place(cut, rank) for rank in group}) == 1


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        *(("sp", True), ("dp", True), ("sp+dp", True), ("fsdp+sp", True)),
        *(("fsdp+dp", False), ("fsdp", False), ("tp", False)),
    ],
)
def test_rows_are_shared_under_sp_and_under_dp_unless_its_ranks_share_the_weights(
    name: str, shared: bool
) -> None:
    everybody, alone = [[0, 1, 2]], [[0], [1], [2]]
    strategy = strategy_named(name)
    assert list(map(list, strategy.sharers(3))) == (everybody if shared else alone)
    assert list(map(list, strategy.beside_sharers(3))) == (alone if shared else everybody)


def test_those_that_talk_the_most_are_next_to_each_other() -> None:
    layout = Layout(tp=2, sp=2)
    assert layout.along(Axis.FEATURES) == [[0, 1], [2, 3]]
    assert layout.along(Axis.SPECS) == [[0, 2], [1, 3]]
    assert layout.beside(Axis.SPECS) == [[0, 1], [2, 3]]
    assert set(AXES.values()) == set(Axis)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tp=0+sp=2", "tp=0: a degree is at least 1"),
        ("tp=2+tp=2", "tp stands there twice"),
        ("fsdp=2+tp=2", "leave one out, such as tp=4"),
        ("tp=2+rows=2", "'rows=2' is not AXIS=DEGREE; the axes are fsdp, tp, sp, dp"),
        ("tp=2+sp", "'sp' is not AXIS=DEGREE"),
        ("tp=-2", "'tp=-2' is not AXIS=DEGREE"),
        ("tp=1+sp=1", "name strategy baseline"),
        ("tp2", "layouts such as tp=2"),
    ],
)
def test_what_is_no_layout_is_refused_with_the_remedy(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        strategy_named(name)


def test_a_gang_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"tp=2\+sp=2 has 4 rank\(s\), not 3"):
        strategy_named("tp=2+sp=2").along(Axis.SPECS, 3)


def test_a_layout_and_the_axes_of_its_strategy_are_the_same() -> None:
    with pytest.raises(UsageError, match="its layout spreads other axes"):
        Strategy("new", frozenset({Axis.SPECS}), Layout(tp=2))


def test_checkpoints_are_an_option_of_layouts_too() -> None:
    found = strategy_named(f"sp=2+tp=2{CHECKPOINT}")
    assert (found.name, found.checkpoint) == (f"tp=2+sp=2{CHECKPOINT}", True)
