"""Networks that cast their values from one precision to another: real arithmetic on the file's own
weights, which no cast rounds; what ONNX Runtime rounds is told apart on replay.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import constant, node

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause, Verdict
from runner.engine.network.graph import Dtype
from runner.engine.network.load import load_graph, prepare
from runner.engine.network.prepared import read_graph
from runner.execute.gang import RankServer
from runner.run.single import verify

# No float32: 1 + 2**-40.
FINE = 1 + 2.0**-40


def save(folder: Path, outer: int, inner: int, weight: np.ndarray) -> Path:
    """`outer` at both ends, and `inner` between two casts, where y = relu(x w)."""
    nodes = [
        node("Cast", "x", "c", to=inner),
        node("MatMul", "c w", "h"),
        node("Relu", "h", "r"),
        node("Cast", "r", "y", to=outer),
    ]
    graph = helper.make_graph(
        nodes,
        "cast",
        [helper.make_tensor_value_info("x", outer, [1, 3])],
        [helper.make_tensor_value_info("y", outer, [1, 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "cast.onnx")
    return folder / "cast.onnx"


WEIGHT = constant((3, 2))


@pytest.fixture
def float32_within(tmp_path: Path) -> Path:
    return save(tmp_path, TensorProto.DOUBLE, TensorProto.FLOAT, WEIGHT)


def test_a_float64_network_may_be_float32_within(float32_within: Path, tmp_path: Path) -> None:
    """ONNX Runtime rounds to float32, which float64's own rounding would not explain."""
    made = prepare(float32_within, tmp_path / "prepared")
    assert (made.dtype, made.lowest) == (Dtype.FLOAT64, Dtype.FLOAT32)
    assert read_graph(tmp_path / "prepared") == made


def test_a_float32_network_may_be_float64_within_and_keeps_its_weights(tmp_path: Path) -> None:
    weight = np.full((3, 2), FINE)
    path = save(tmp_path, TensorProto.FLOAT, TensorProto.DOUBLE, weight)
    assert prepare(path, tmp_path / "prepared").dtype is Dtype.FLOAT64
    tensors = load_graph(path).tensors
    (kept,) = (value for name, value in tensors.items() if name.endswith("weight"))
    assert (kept == FINE).all()


def test_half_precision_within_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, TensorProto.FLOAT, TensorProto.FLOAT16, WEIGHT.astype(np.float16))
    with pytest.raises(InstanceError, match="changes the precision of a computed") as caught:
        prepare(path, tmp_path / "prepared")
    assert caught.value.cause is Cause.UNSUPPORTED_OPERATOR


@pytest.mark.parametrize(("strategy", "ranks"), [("baseline", 1), ("fsdp", 2), ("tp", 2)])
def test_questions_about_it_are_answered(
    strategy: str, ranks: int, float32_within: Path, tmp_path: Path, rank_server: RankServer
) -> None:
    most = float(np.maximum(WEIGHT[:, 0], 0).sum())
    lines = [f"(declare-const {x}_{i} Real)" for x, n in (("X", 3), ("Y", 2)) for i in range(n)]
    lines += [f"(assert (and (>= X_{i} 0) (<= X_{i} 1)))" for i in range(3)]
    for bound, verdict in ((most - 0.01, Verdict.SAT), (most + 0.01, Verdict.UNSAT)):
        asked = tmp_path / "p.vnnlib"
        asked.write_text("\n".join([*lines, f"(assert (>= Y_0 {bound}))"]))
        found = verify(
            float32_within, asked, timeout=60, strategy=strategy, ranks=ranks, executor=rank_server
        )
        assert found.verdict is verdict, found.outcome.message
