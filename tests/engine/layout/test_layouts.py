"""Axes on ranks of their own: what one rank finds, whatever grid the ranks form."""

from __future__ import annotations

from pathlib import Path

import agreement_targets
import empty_share_targets
import pytest
from device import DEVICE
from small_networks import Builder, SmallNetwork, mlp
from small_onnx import save_small, save_true_property

from runner.contract.errors import UsageError
from runner.contract.layout import Axis
from runner.contract.question import Job, RankReport
from runner.contract.vocabulary import Cause, Method, Verdict
from runner.contract.wire import job_to_json, report_from_json
from runner.engine.layout.group import Group
from runner.engine.layout.mesh import Mesh
from runner.engine.network.graph import Op
from runner.engine.network.prepared import write_prepared
from runner.engine.programs.verify import verify_job
from runner.execute.gang import Ending, GangResult, RankServer
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
    x = builder.pointwise(Op.RELU, builder.conv("x", 3, stride=(2, 2), padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.linear(builder.flatten(x), 11))
    return builder.network(builder.linear(x, 3))


NETWORKS = {
    "mlp": lambda: mlp(7, 19, 13, 4),
    "cnn": convolutional,
    "residual": residual,
}


def finished(result: GangResult) -> list[RankReport]:
    assert result.ended is Ending.FINISHED, result
    assert result.dead_rank is None, result.reports
    return [report for report in result.reports if report is not None]


@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_on_a_grid_are_those_of_one_rank(
    name: str, rank_server: RankServer, tmp_path: Path
) -> None:
    small = NETWORKS[name]()
    write_prepared(tmp_path / "prepared", small.graph, small.tensors)
    gangs = {4: OF_FOUR} | ({6: OF_SIX, 8: OF_EIGHT} if name == "mlp" else {})
    for ranks, names in gangs.items():
        payload = {
            "prepared": str(tmp_path / "prepared"),
            "radius": 0.3,
            "strategies": names,
            "by_alpha": names,
        }
        target = f"{agreement_targets.__name__}:agreement"
        result = rank_server.run(target, payload, ranks, tmp_path / f"gang{ranks}", timeout_s=200)
        for report in finished(result):
            for question, answer in report.items():
                assert answer["outside"] <= 1, question
                assert answer["apart"] <= 1, question
                if question.split()[1] in EXACT:
                    assert answer["same_bits"], question
