"""A rank that owns nothing of a node takes part all the same, whatever operator and strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import empty_share_targets
import pytest
from device import DEVICE
from examples import rest
from small_networks import Builder, SmallNetwork
from small_onnx import save_small, save_true_property

from runner.contract.layout import Axis
from runner.contract.question import Question, Report
from runner.contract.strategy import Engine
from runner.contract.vocabulary import BOUNDS, Verdict
from runner.contract.wire import question_to_json, report_from_json
from runner.contract.workload import Workload
from runner.engine.network.graph import Op
from runner.engine.network.prepared import write_prepared
from runner.engine.programs.verify import verify_question
from runner.execute.gang import Ending, RankServer
from runner.verifiers.strategies import STRATEGIES, strategy_named

PARALLEL = tuple(s.name for s in STRATEGIES.values() if s.parallel and s.engine is Engine.DRIVER)
CUT = tuple(name for name in PARALLEL if Axis.FEATURES in STRATEGIES[name].sharded)
OTHERS = tuple(name for name in PARALLEL if name not in CUT)

Make = Callable[[], SmallNetwork]
Node = Callable[[Builder, str], str]


def through(node: Node, channels: int = 1) -> Make:
    """An image of so many channels, ReLU, the node, ReLU and one output; 25 inputs: ReLU split."""

    def network() -> SmallNetwork:
        builder = Builder((1, 5, 5), seed=1)
        x = builder.pointwise(Op.RELU, builder.conv("x", channels, stride=(2, 2), padding=(1, 1)))
        x = node(builder, x)
        x = x if len(builder.shape(x)) == 1 else builder.flatten(x)
        return builder.network(builder.linear(builder.pointwise(Op.RELU, x), 1))

    return network


def chain(*widths: int) -> Make:
    def network() -> SmallNetwork:
        builder, x = Builder((widths[0],), seed=1), "x"
        for width in widths[1:-1]:
            x = builder.pointwise(Op.RELU, builder.linear(x, width))
        return builder.network(builder.linear(x, widths[-1]))

    return network


def pooled(op: Op, padding: int) -> Make:
    return through(lambda b, x: b.pool(op, x, (2, 2), (1, 1), (padding, padding)))


def both(op: Op) -> Make:
    return through(lambda b, x: b.pointwise(op, b.conv(x, 1, padding=(1, 1)), x))


NETWORKS = {
    "input": chain(1, 5, 1),
    "linear": chain(4, 1, 5, 1),
    "conv": through(lambda b, x: b.conv(x, 1), channels=3),
    "grouped conv": through(lambda b, x: b.conv(x, 2, (2, 2), groups=2), channels=2),
    "affine": through(lambda b, x: b.affine(x, 1, 1, 1)),
    "add": both(Op.ADD),
    "sub": both(Op.SUB),
    "concat of channels": through(lambda b, x: b.concat(0, b.conv(x, 1, (1, 1)), x)),
    "concat of rows": through(lambda b, x: b.concat(1, b.conv(x, 1, (1, 1)), x)),
    "reshape": through(lambda b, x: b.reshape(b.linear(b.flatten(x), 4), 1, 2, 2)),
    "max pool": pooled(Op.MAXPOOL, 0),
    "padded max pool": pooled(Op.MAXPOOL, 1),
    "average pool": pooled(Op.AVGPOOL, 0),
    "padded average pool": pooled(Op.AVGPOOL, 1),
    "sigmoid": through(lambda b, x: b.pointwise(Op.SIGMOID, b.conv(x, 1))),
    "tanh": through(lambda b, x: b.pointwise(Op.TANH, b.linear(b.flatten(x), 1))),
}


@dataclass(frozen=True)
class Asked:
    """A question to a network, and what `baseline` says of it."""

    job: Question
    alone: Report


def asked(network: SmallNetwork, folder: Path, workload: Workload | None) -> Asked:
    write_prepared(folder / "prepared", network.graph, network.tensors)
    job = Question(
        network=str(save_small(folder / "network.onnx", network)),
        prepared=str(folder / "prepared"),
        property=str(save_true_property(folder / "p.vnnlib", network, radius=1.0, room=0.1)),
        strategy=strategy_named("baseline"),
        ranks=1,
        timeout_s=300.0,
        device=DEVICE,
        workload=workload,
        counterexample=str(folder / "counterexample.gz"),
    )
    return Asked(job, verify_question(job))


@pytest.fixture(scope="module", params=NETWORKS)
def question(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """All bounds and a round of branch and bound, whatever they prove."""
    folder = tmp_path_factory.mktemp("question")
    return asked(NETWORKS[request.param](), folder, Workload(rounds=1, batch=4))


def gang(
    rank_server: RankServer,
    asked: Asked,
    ranks: int,
    strategies: tuple[str, ...],
    searched: tuple[str, ...],
) -> list[Any]:
    """What each rank found: bounds under `strategies`, then the answers of those `searched`."""
    job, folder = asked.job, Path(asked.job.prepared).parent
    chosen = map(strategy_named, searched)
    jobs = [question_to_json(replace(job, strategy=one, ranks=ranks)) for one in chosen]
    bounds = {
        "prepared": job.prepared,
        "property": job.property,
        "strategies": strategies,
        "methods": BOUNDS,
        "steps": 2,
    }
    target = f"{empty_share_targets.__name__}:bounds_and_verdicts"
    result = rank_server.run(target, {"bounds": bounds, "jobs": jobs}, ranks, folder / "gang", 300)
    assert result.ended is Ending.FINISHED, result
    assert result.dead_rank is None, result.reports
    return [*result.reports]


def assert_bounds_of_baseline(found: dict[str, Any]) -> None:
    for what, answer in found.items():
        strategy = STRATEGIES[what.split()[1]]
        if strategy.interval_zones:
            assert answer["tighter"] <= 1, what
        elif Axis.FEATURES in strategy.sharded:
            assert answer["apart"] <= 1, what
        else:
            assert answer["differ"] == [], what


def assert_search_of_baseline(reports: list[Any], alone: Report, names: Sequence[str]) -> None:
    same = (alone.verdict, alone.cause, alone.method)
    bound = pytest.approx(alone.lower_bound, rel=1e-4, abs=1e-4)
    for name, report in zip(names, map(report_from_json, reports), strict=True):
        assert (report.verdict, report.cause, report.method) == same, name
        assert report.lower_bound == bound, name


@pytest.mark.parametrize("ranks", [2, *rest(3, 4)])
def test_ranks_without_a_neuron_of_an_operator_bound_and_search_as_one_rank_does(
    rank_server: RankServer, question: Asked, ranks: int
) -> None:
    found = gang(rank_server, question, ranks, CUT, ("tp",))
    assert_bounds_of_baseline(found[0]["bounds"])
    for rank in found:
        assert_search_of_baseline(rank["reports"], question.alone, ["tp"])


@pytest.mark.parametrize("ranks", [3, *rest(2, 4)])
@pytest.mark.parametrize("question", ["linear"], indirect=True)
def test_ranks_without_a_block_a_row_or_a_domain_bound_and_search_as_one_rank_does(
    rank_server: RankServer, question: Asked, ranks: int
) -> None:
    found = gang(rank_server, question, ranks, OTHERS, OTHERS)
    assert_bounds_of_baseline(found[0]["bounds"])
    for rank in found:
        assert_search_of_baseline(rank["reports"], question.alone, OTHERS)


def test_every_strategy_decides_where_a_rank_has_no_channel(
    rank_server: RankServer, tmp_path: Path
) -> None:
    one = asked(NETWORKS["padded average pool"](), tmp_path, workload=None)
    assert one.alone.verdict is Verdict.UNSAT
    for rank in gang(rank_server, one, 3, (), PARALLEL):
        verdicts = {name: r["verdict"] for name, r in zip(PARALLEL, rank["reports"], strict=True)}
        assert verdicts == dict.fromkeys(PARALLEL, Verdict.UNSAT)
