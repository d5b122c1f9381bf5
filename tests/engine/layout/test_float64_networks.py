"""Networks of float64 keep their weights to the last bit, wherever these lie and travel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from device import DEVICE
from onnx import TensorProto, helper, numpy_helper

from runner.contract.question import Question
from runner.contract.vocabulary import Verdict
from runner.contract.wire import question_to_json, report_from_json
from runner.engine.network.load import prepare
from runner.engine.network.prepared import PreparedWeights, read_graph
from runner.execute.gang import Ending, RankServer
from runner.verifiers.strategies import strategy_named

STRATEGIES = ("baseline", "fsdp", "tp", "sp", "dp", "fsdp+dp", "offload")


def difference(folder: Path) -> Path:
    """y = relu(16777217 x) - 16777216 x: 1 at x = 1, and 0 if the weights were cut to float32."""
    first = np.array([[16777217.0], [16777216.0]])
    last = np.array([[1.0, -1.0]])
    tensors = [("w", first), ("b", np.zeros(2)), ("v", last), ("c", np.zeros(1))]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "v", "c"], ["y"], transB=1),
        ],
        "difference",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, (1, 1))],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, (1, 1))],
        [numpy_helper.from_array(value, name) for name, value in tensors],
    )
    path = folder / "network.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def verdict(
    server: RankServer, folder: Path, strategy: str, ranks: int, constraint: str
) -> dict[str, Any]:
    network, instance = difference(folder), folder / "property.vnnlib"
    prepared = folder / "prepared"
    prepare(network, prepared)
    graph = read_graph(prepared)
    weight = PreparedWeights(prepared).tensor(graph.nodes[1].parameters["weight"])
    assert weight.dtype is torch.float64
    instance.write_text(
        "(declare-const X_0 Real)(declare-const Y_0 Real)"
        f"(assert (>= X_0 1))(assert (<= X_0 2))(assert {constraint})",
        encoding="ascii",
    )
    job = Question(
        network=str(network),
        prepared=str(prepared),
        property=str(instance),
        strategy=strategy_named(strategy),
        ranks=ranks,
        timeout_s=30.0,
        device=DEVICE,
        counterexample=str(folder / "counterexample.gz"),
    )
    target = "runner.engine.programs.verify:verify_target"
    result = server.run(target, question_to_json(job), ranks, folder / "gang", timeout_s=60.0)
    assert result.ended is Ending.FINISHED, result
    (first, *others) = [report_from_json(report) for report in result.reports if report]
    assert {report.verdict for report in others} <= {first.verdict}
    return {"verdict": first.verdict, "message": first.message}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_says_what_float64_says(
    strategy: str, rank_server: RankServer, tmp_path: Path
) -> None:
    ranks = 1 if strategy in ("baseline", "offload") else 2
    # At least 1 in the box; with weights of float32 it would be 0.
    found = verdict(rank_server, tmp_path, strategy, ranks, "(<= Y_0 0.9)")
    assert found["verdict"] is Verdict.UNSAT, found
    found = verdict(rank_server, tmp_path, strategy, ranks, "(>= Y_0 1.9)")
    assert found["verdict"] is Verdict.SAT, found
