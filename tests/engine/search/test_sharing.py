"""Sub-problems on several ranks: the verdict of one rank, every domain on one, one end for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sharing_targets
from examples import rest, seeds
from hypothesis import given
from hypothesis import strategies as st
from questions import save_onnx
from small_networks import mlp

from runner.contract.layout import Axis
from runner.engine.layout.levelling import moves
from runner.engine.network.load import prepare
from runner.execute.gang import Ending, GangResult, RankServer
from runner.verifiers.strategies import strategy_named

Reports = list[dict[str, Any]]
Ranks = Callable[..., Reports]
Gang = Callable[..., GangResult]


@pytest.fixture(scope="module")
def gang(rank_server: RankServer, tmp_path_factory: pytest.TempPathFactory) -> Gang:
    folder = tmp_path_factory.mktemp("sharing")

    def run(target: str, count: int, **payload: Any) -> GangResult:
        name = f"{sharing_targets.__name__}:{target}"
        return rank_server.run(name, payload, count, folder / f"{target}-{count}", timeout_s=100)

    return run


@pytest.fixture(scope="module")
def ranks(gang: Gang) -> Ranks:
    def run(target: str, count: int, **payload: Any) -> Reports:
        result = gang(target, count, **payload)
        assert result.ended is Ending.FINISHED, result
        assert result.dead_rank is None, result.reports
        return [report for report in result.reports if report is not None]

    return run


@pytest.mark.parametrize("count", [2, *rest(3)])
def test_random_questions_have_the_same_answer_on_one_rank_and_on_many(
    ranks: Ranks, count: int
) -> None:
    reports = ranks("searches", count, seeds=[0, *seeds(2000, 30)])
    outcomes, shared = set(), 0
    for key in reports[0]:
        answers = [report[key] for report in reports]
        alone = answers[0][0]
        assert [answer[1] for answer in answers] == [alone] * count, key
        # A counterexample is written once, and only where there is one.
        assert sum(answer[3] for answer in answers) == (alone == "counterexample"), key
        shared += all(answer[2] > 0 for answer in answers)
        outcomes.add(alone)
    assert {"proved", "counterexample"} <= outcomes
    assert shared > len(reports[0]) // 20


@pytest.mark.parametrize(("strategy", "count"), [("dp", 2), ("dp", 3), ("tp=2+dp=2", 4)])
def test_a_counterexample_on_one_rank_ends_the_rounds_of_all(
    ranks: Ranks, strategy: str, count: int
) -> None:
    reports = ranks("found_elsewhere", count, strategy=strategy)
    assert all(report["due"] and report["found"] for report in reports)
    assert [report["wrote"] for report in reports] == [True] + [False] * (count - 1)
    assert max(report["seconds"] for report in reports) < 10


@pytest.mark.parametrize(("strategy", "count"), [("dp", 3), ("tp=2+dp=2", 4)])
def test_a_deadline_on_one_rank_is_one_for_all(ranks: Ranks, strategy: str, count: int) -> None:
    assert ranks("deadline", count, strategy=strategy) == [{"reached": True}] * count


@pytest.mark.parametrize(("strategy", "count"), [("dp", 3), ("fsdp+dp", 3), ("tp=2+dp=2", 4)])
def test_a_rank_killed_in_a_round_ends_the_gang(
    gang: Gang, tmp_path: Path, strategy: str, count: int
) -> None:
    prepare(save_onnx(tmp_path / "network.onnx", mlp(4, 8, 2)), tmp_path / "prepared")
    result = gang("killed", count, prepared=str(tmp_path / "prepared"), strategy=strategy)
    assert (result.ended, result.dead_rank) == (Ending.RANK_DIED, count - 1)
    assert result.run_time_s < 10  # and not the timeout


SEARCHERS = [("dp", 3), *rest(("dp", 2), ("tp=2+dp=2", 4))]


@pytest.mark.parametrize("restarts", [7, 1])
@pytest.mark.parametrize(("strategy", "count"), SEARCHERS)
def test_ranks_attack_from_starts_of_their_own_and_know_what_all_came_nearest_to(
    ranks: Ranks, strategy: str, count: int, restarts: int
) -> None:
    asked = {"strategy": strategy, "reached": False, "restarts": restarts}
    reports = ranks("attacks", count, **asked)
    assert not any(report["found"] for report in reports)
    assert all(report["ends"] == reports[0]["ends"] for report in reports)
    assert len(reports[0]["ends"]) == 3  # one of each target
    searchers = strategy_named(strategy).along(Axis.DOMAINS, count)[0]
    began = [report["began"] for report in reports]
    of_all = [tuple(point) for rank in searchers for point in began[rank]]
    assert len(of_all) == 3 * restarts
    if restarts > 1:  # else all begin at the centre, which is of all targets
        assert len(set(of_all)) > restarts
        (alone,) = ranks("attacks", 1, **asked | {"strategy": "dp"})
        assert {tuple(point) for point in alone["began"]} == set(of_all)


@pytest.mark.parametrize(("strategy", "count"), SEARCHERS)
def test_a_counterexample_that_one_rank_comes_to_ends_the_attack_of_all(
    ranks: Ranks, strategy: str, count: int
) -> None:
    asked = {"strategy": strategy, "reached": True, "restarts": 6}
    reports = ranks("attacks", count, finder=0, **asked)
    assert [report["found"] for report in reports] == [True] * count
    assert [report["wrote"] for report in reports] == [True] + [False] * (count - 1)


def test_what_ended_one_search_of_a_gang_does_not_end_the_next(ranks: Ranks) -> None:
    asked = {"strategy": "dp", "restarts": 6}
    first = asked | {"reached": True, "finder": 0}
    reports = ranks("attacks_twice", 3, first=first, second=asked | {"reached": False})
    assert [report["first"]["found"] for report in reports] == [True] * 3
    assert [report["second"]["found"] for report in reports] == [False] * 3
    assert all(len(report["second"]["ends"]) == 3 for report in reports)


@pytest.mark.parametrize(("strategy", "count"), SEARCHERS)
def test_a_deadline_in_an_attack_is_one_for_all(ranks: Ranks, strategy: str, count: int) -> None:
    asked = {"strategy": strategy, "reached": False, "restarts": 6, "late": 0}
    assert ranks("attacks", count, **asked) == [{"reached": True}] * count


@pytest.mark.parametrize(("strategy", "count"), SEARCHERS)
def test_a_rank_killed_in_an_attack_ends_the_gang(gang: Gang, strategy: str, count: int) -> None:
    asked = {"strategy": strategy, "reached": False, "restarts": 6}
    result = gang("attacks", count, dies=count - 1, **asked)
    assert (result.ended, result.dead_rank) == (Ending.RANK_DIED, count - 1)
    assert result.run_time_s < 10  # and not the timeout


@pytest.mark.parametrize("count", [3, *rest(2)])
def test_many_boxes_are_halved_each_on_one_rank_and_all_know_what_is_proved(
    ranks: Ranks, count: int
) -> None:
    asked = {"strategy": "dp", "below": 0.05}
    (alone,), reports = ranks("many_boxes", 1, **asked), ranks("many_boxes", count, **asked)
    assert alone["end"] == "proved"
    for report in reports:
        assert report["end"] == "proved"
        assert not any(report["open"])
        assert report["margins"] == reports[0]["margins"]
    # Twelve boxes, which have nothing to do with each other.
    assert sum(report["domains"] for report in reports) == alone["domains"]
    assert all(report["domains"] for report in reports)


def test_a_deadline_on_one_rank_while_many_boxes_are_halved_is_one_for_all(ranks: Ranks) -> None:
    asked = {"strategy": "dp", "below": 0.05, "late": 1}
    assert ranks("many_boxes", 3, **asked) == [{"reached": True}] * 3


@pytest.mark.parametrize("count", [2, 3])
def test_weights_come_to_ranks_that_want_them_in_different_orders(
    ranks: Ranks, count: int, tmp_path: Path
) -> None:
    network = mlp(30, 70, 50, 2)
    prepare(save_onnx(tmp_path / "network.onnx", network), tmp_path / "prepared")
    reports = ranks("requests", count, prepared=str(tmp_path / "prepared"))
    for rank, report in enumerate(reports):
        assert report["right"] == [True] * (4 + 3 * rank)
        assert report["bytes"] > 0


@given(
    st.lists(st.integers(0, 10**5), min_size=1, max_size=9),
    st.integers(1, 100),
)
def test_levelling_leaves_nobody_poor_and_makes_nobody_poor(counts: list[int], enough: int) -> None:
    left, mean = list(counts), sum(counts) // len(counts)
    for source, target, count in moves(counts, enough):
        assert count > 0
        assert counts[target] < enough
        assert 2 * count <= left[source]
        left[source] -= count
        left[target] += count
        assert left[source] >= mean
    assert min(left) >= min(enough, mean)
    assert sum(left) == sum(counts)
