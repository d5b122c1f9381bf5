"""Axes on ranks of their own: what one rank finds, whatever grid the ranks form."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import agreement_targets
import pytest
from device import DEVICE
from examples import rest, rest_but
from small_networks import Builder, SmallNetwork, mlp
from small_onnx import save_small, save_true_property

from runner.contract.layout import Axis
from runner.contract.question import Question, Report
from runner.contract.vocabulary import Cause, Method, Verdict
from runner.contract.wire import question_to_json, report_from_json
from runner.engine.layout.node_plans import node_plans
from runner.engine.network.graph import Op
from runner.engine.network.prepared import write_prepared
from runner.engine.programs.verify import verify_question
from runner.execute.gang import Ending, GangResult, RankServer
from runner.experiments.experiment import TARGET
from runner.run.programs import VERIFY
from runner.verifiers.strategies import strategy_named

EXACT = ("fsdp=2+sp=2", "fsdp=2+dp=2", "sp=2+dp=2")
CLOSE = ("tp=2+sp=2", "tp=2+dp=2")
OF_FOUR = (*EXACT, *CLOSE)
OF_SIX = ("tp=3+sp=2", "tp=2+sp=3")
OF_EIGHT = ("tp=2+sp=2+dp=2", "fsdp=2+sp=2+dp=2")


def residual() -> SmallNetwork:
    builder = Builder((2, 5, 5), 3)
    x = builder.pointwise(Op.RELU, builder.conv("x", 5, padding=(1, 1)))
    inner = builder.pointwise(Op.RELU, builder.conv(x, 5, padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.pointwise(Op.ADD, inner, x))
    return builder.network(builder.linear(builder.flatten(x), 3))


def convolutional() -> SmallNetwork:
    builder = Builder((1, 6, 6), 4)
    x = builder.pointwise(Op.RELU, builder.conv("x", 7, padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.linear(builder.flatten(x), 11))
    return builder.network(builder.linear(x, 3))


NETWORKS = {
    "mlp": lambda: mlp(7, 160, 150, 4),
    "cnn": convolutional,
    "residual": residual,
}


def finished(result: GangResult) -> list[Report]:
    assert result.ended is Ending.FINISHED, result
    assert result.dead_rank is None, result.reports
    return [report_from_json(report) for report in result.reports if report is not None]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        *(("mlp", OF_SIX), ("cnn", OF_FOUR), ("residual", OF_FOUR)),
        *rest(("mlp", OF_FOUR), ("mlp", OF_EIGHT)),
    ],
)
def test_bounds_on_a_grid_are_those_of_one_rank(
    name: str, names: tuple[str, ...], rank_server: RankServer, tmp_path: Path
) -> None:
    small, ranks = NETWORKS[name](), strategy_named(names[0]).ranks_of(0)
    write_prepared(tmp_path / "prepared", small.graph, small.tensors)
    payload = {
        "prepared": str(tmp_path / "prepared"),
        "radius": 0.3,
        "strategies": names,
        "by_alpha": names,
    }
    target = f"{agreement_targets.__name__}:agreement"
    result = rank_server.run(target, payload, ranks, tmp_path / "gang", timeout_s=200)
    assert (result.ended, result.dead_rank) == (Ending.FINISHED, None), result
    for report in filter(None, result.reports):
        for question, answer in report.items():
            assert answer["outside"] <= 1, question
            assert answer["apart"] <= 1, question
            if question.split()[1] in EXACT:
                assert answer["same_bits"], question


def job(small: SmallNetwork, folder: Path, room: float = 0.1) -> Question:
    """Under `baseline`; outputs that are less than what is reached, by `room`, are unsafe."""
    write_prepared(folder / "prepared", small.graph, small.tensors)
    return Question(
        network=str(save_small(folder / "network.onnx", small)),
        prepared=str(folder / "prepared"),
        property=str(save_true_property(folder / "p.vnnlib", small, radius=0.6, room=room)),
        strategy=strategy_named("baseline"),
        ranks=1,
        timeout_s=300.0,
        device=DEVICE,
        counterexample=str(folder / "counterexample.gz"),
        bounds=str(folder / "bounds"),
    )


def under(name: str, asked: Question, **more: Any) -> tuple[dict[str, Any], int]:
    strategy = strategy_named(name)
    ranks = strategy.ranks_of(0)
    return question_to_json(replace(asked, strategy=strategy, ranks=ranks, **more)), ranks


SEARCHED = {
    "input-split": lambda: mlp(3, 12, 10, 2),
    "beta-crown": lambda: mlp(25, 12, 10, 2),
    "plane-split": lambda: mlp(25, 20, 2),
}


# Each grid once, and each search where ranks share domains and where they do not.
SEARCHED_ALWAYS = (
    *(("input-split", "tp=2+sp=2"), ("input-split", "sp=2+dp=2"), ("input-split", "fsdp=2+dp=2")),
    *(("beta-crown", "tp=2+dp=2"), ("beta-crown", "fsdp=2+sp=2")),
    *(("plane-split", "tp=2+sp=2"), ("plane-split", "fsdp=2+dp=2")),
)


@pytest.mark.parametrize(
    ("search", "name"),
    rest_but(SEARCHED_ALWAYS.__contains__, product(SEARCHED, (*OF_FOUR, "tp=2+sp=2+dp=2"))),
)
def test_a_search_on_a_grid_has_the_answer_of_one_rank(
    search: str, name: str, rank_server: RankServer, tmp_path: Path
) -> None:
    asked = job(SEARCHED[search](), tmp_path)
    alone = verify_question(asked)
    assert (alone.verdict, alone.method) == (Verdict.UNSAT, search)
    payload, ranks = under(name, asked)
    result = rank_server.run(VERIFY, payload, ranks, tmp_path / "gang", timeout_s=300)
    reports = finished(result)
    assert [report.verdict for report in reports] == [Verdict.UNSAT] * ranks
    # Ranks that have the same sub-problems have bounded the same ones.
    for group in strategy_named(name).beside(Axis.DOMAINS, ranks):
        assert len({reports[rank].measured.domains for rank in group}) == 1
    if "dp" not in name:  # a search on several ranks has an order of its own
        assert reports[0].lower_bound == pytest.approx(alone.lower_bound, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", rest_but(("tp=2+sp=2", "fsdp=2+dp=2").__contains__, OF_FOUR))
def test_a_counterexample_is_confirmed_and_written_once(
    name: str, rank_server: RankServer, tmp_path: Path
) -> None:
    payload, ranks = under(name, job(mlp(25, 12, 10, 2), tmp_path, room=-0.1))
    result = rank_server.run(VERIFY, payload, ranks, tmp_path / "gang", timeout_s=300)
    assert [report.verdict for report in finished(result)] == [Verdict.SAT] * ranks
    assert (tmp_path / "counterexample.gz").is_file()


@pytest.mark.parametrize(
    ("name", "late"),
    [
        *(("tp=2+sp=2", 0), ("tp=2+sp=2", 3), ("fsdp=2+sp=2", 2)),
        *(("dp", 0), ("tp=2+dp=2", 2), ("tp=2+dp=2", 3)),
        *rest(("tp=2+sp=2", 2), ("fsdp=2+sp=2", 0), ("fsdp=2+sp=2", 3)),
    ],
)
def test_a_clock_that_is_ahead_stops_its_whole_group_and_no_other(
    name: str, late: int, rank_server: RankServer, tmp_path: Path
) -> None:
    small = mlp(7, 160, 150, 4)
    write_prepared(tmp_path / "prepared", small.graph, small.tensors)
    payload = {"prepared": str(tmp_path / "prepared"), "strategy": name, "late": late}
    target = f"{agreement_targets.__name__}:late_on_one_rank"
    result = rank_server.run(target, payload, 4, tmp_path / "gang", timeout_s=100)
    assert (result.ended, result.dead_rank) == (Ending.FINISHED, None), result
    found = [report for report in result.reports if report is not None]
    assert len({report["digest"] for report in found}) == 1
    assert found[0]["tighter"] <= 1
    # Of each group the first rank's clock counts.
    first = [group[0] for group in strategy_named(name).beside_sharers(4)]
    assert (found[0]["looser"] > 1) == (late in first)


@pytest.mark.parametrize(
    ("name", "late"), [("dp", 0), ("dp", 3), ("fsdp=2+dp=2", 0), *rest(("sp", 0), ("tp=2+dp=2", 0))]
)
def test_no_rank_waits_for_one_whose_deadline_came_while_rows_were_shared(
    name: str, late: int, rank_server: RankServer, tmp_path: Path
) -> None:
    """What the first of all says is the end of all; of any other, bounds that are not there."""
    small = mlp(7, 160, 150, 4)
    write_prepared(tmp_path / "prepared", small.graph, small.tensors)
    payload = {"prepared": str(tmp_path / "prepared"), "strategy": name, "late": late}
    target = f"{agreement_targets.__name__}:deadline_while_rows_are_shared"
    result = rank_server.run(target, payload, 4, tmp_path / "gang", timeout_s=100)
    assert (result.ended, result.dead_rank) == (Ending.FINISHED, None), result
    ends = [report["reached"] for report in result.reports if report is not None]
    assert ends == [late == 0] * 4
    assert result.run_time_s < 30


@pytest.mark.parametrize("name", ["dp", *rest("sp", "tp=2+dp=2")])
def test_ranks_that_want_rows_of_other_neurons_share_none(
    name: str, rank_server: RankServer, tmp_path: Path
) -> None:
    small = mlp(7, 160, 150, 4)
    write_prepared(tmp_path / "prepared", small.graph, small.tensors)
    payload = {"prepared": str(tmp_path / "prepared"), "strategy": name, "other": 3}
    target = f"{agreement_targets.__name__}:other_neurons_on_one_rank"
    result = rank_server.run(target, payload, 4, tmp_path / "gang", timeout_s=100)
    assert (result.ended, result.dead_rank) == (Ending.FINISHED, None), result
    causes = [report["cause"] for report in result.reports if report is not None]
    # Only those that share rows with rank 3 hear of it.
    (with_it,) = (group for group in strategy_named(name).sharers(4) if 3 in group)
    assert [rank for rank, cause in enumerate(causes) if cause] == list(with_it)
    assert {cause for cause in causes if cause} == {Cause.GANG_MISMATCH}


@pytest.mark.parametrize("name", ["tp=2+sp=2", "fsdp=2+sp=2", "tp=2+dp=2", "tp=2+sp=3"])
def test_every_rank_keeps_the_weights_that_the_plan_says(
    name: str, rank_server: RankServer, tmp_path: Path
) -> None:
    small = mlp(20, 64, 50, 6)
    payload, ranks = under(name, job(small, tmp_path), method=Method.CROWN)
    result = rank_server.run(TARGET, payload, ranks, tmp_path / "gang", timeout_s=100)
    plans = node_plans(small.graph, small.source.shape, strategy_named(name), ranks)
    biases = sum(
        small.tensors[f"{node.name}.bias"].nbytes for node in plans if any(node.weight_bytes)
    )
    planned = [sum(node.weight_bytes[rank] for node in plans) + biases for rank in range(ranks)]
    assert [report.measured.weight_bytes for report in finished(result)] == planned
