"""Networks of several inputs and outputs: their values count one behind the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runner import verify
from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause, Verdict
from runner.execute.gang import RankServer
from runner.problem.assignment import format_assignment
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.counterexample import Assignment
from runner.problem.property.read_property import read_networks, read_property
from runner.problem.property.shapes import check_tensors
from runner.problem.replay import Validity, replay

# h = relu(4 inputs), of which `first` has two and `second` two; low is h's first and high the rest.
WEIGHT = np.array([[1, 0, 2], [0, 1, 0], [1, 1, 0], [-1, 0, 1]], dtype=np.float32)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """`low` is max(0, a0 + b0 - b1), `high` (max(0, a1 + b0), max(0, 2 a0 + b1))."""
    nodes = [
        helper.make_node("Concat", ["first", "second"], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["h"]),
        helper.make_node("Slice", ["h", "zero", "one", "axis"], ["low"]),
        helper.make_node("Slice", ["h", "one", "three", "axis"], ["high"]),
    ]
    constants = {"zero": [0], "one": [1], "three": [3], "axis": [1]}
    values = [
        numpy_helper.from_array(WEIGHT, "w"),
        *(numpy_helper.from_array(np.array(v), name) for name, v in constants.items()),
    ]
    graph = helper.make_graph(
        nodes,
        "two of each",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2])
            for name in ("first", "second")
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count])
            for name, count in (("low", 1), ("high", 2))
        ],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "two.onnx")
    return tmp_path / "two.onnx"


def version_1(folder: Path, assertion: str) -> Path:
    lines = [f"(declare-const {x}_{i} Real)" for x, n in (("X", 4), ("Y", 3)) for i in range(n)]
    lines += [f"(assert (and (>= X_{i} 0) (<= X_{i} {i + 1})))" for i in range(4)]
    path = folder / "p.vnnlib"
    path.write_text("\n".join([*lines, f"(assert {assertion})"]))
    return path


def version_2(folder: Path, assertion: str, *names: str) -> Path:
    """`names`: of the network's inputs and outputs, as the property says them."""
    first, second, low, high = (f' "{name}"' if name else "" for name in names or [""] * 4)
    head = f"""(vnnlib-version <2.0>)
(declare-network f
  (declare-input A float32 [1,2]{first})
  (declare-input B float32 [1,2]{second})
  (declare-output L float32 [1,1]{low})
  (declare-output H float32 [1,2]{high}))
(assert (and (>= A[0,0] 0.0) (<= A[0,0] 1.0) (>= A[0,1] 0.0) (<= A[0,1] 2.0)))
(assert (and (>= B[0,0] 0.0) (<= B[0,0] 3.0) (>= B[0,1] 0.0) (<= B[0,1] 4.0)))
"""
    path = folder / "q.vnnlib"
    path.write_text(head + f"(assert {assertion})\n")
    return path


# The greatest values are 4 for low, 5 and 6 for high; of high's second beside low's, 6 and 1.
@pytest.mark.parametrize(
    ("strategy", "ranks"), [("baseline", 1), ("fsdp", 2), ("sp", 2), ("tp", 2)]
)
@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        ("(>= Y_2 5.9)", "(>= H[0,1] 5.9)", Verdict.SAT),
        ("(>= Y_1 5.1)", "(>= H[0,0] 5.1)", Verdict.UNSAT),
        ("(and (>= Y_0 3.9) (>= Y_1 4.8))", "(and (>= L[0,0] 3.9) (>= H[0,0] 4.8))", Verdict.SAT),
    ],
)
def test_both_versions_are_answered_alike(
    one: str,
    two: str,
    verdict: Verdict,
    strategy: str,
    ranks: int,
    network: Path,
    tmp_path: Path,
    rank_server: RankServer,
) -> None:
    for asked in (version_1(tmp_path, one), version_2(tmp_path, two)):
        found = verify(
            network, asked, timeout=60, strategy=strategy, ranks=ranks, executor=rank_server
        )
        assert found.verdict is verdict, found.outcome.message
        if found.counterexample is not None:
            inputs, outputs = found.counterexample
            assert (len(inputs), len(outputs)) == (4, 3)


def test_an_assignment_has_every_variable_and_replays(network: Path, tmp_path: Path) -> None:
    query = version_2(tmp_path, "(>= H[0,1] 5.9)", "first", "second", "low", "high")
    (declared,) = read_networks(query)
    said = Assignment(("1.0", "0.0", "0.0", "4.0"), ("0.0", "0.0", "6.0"))
    text = format_assignment(declared.inputs, declared.outputs, said)
    heads = [line for line in text.splitlines() if "[" in line]
    names = ["A float32 [1,2]", "B float32 [1,2]", "L float32 [1,1]", "H float32 [1,2]"]
    assert heads == names
    (tmp_path / "said").write_text(text)
    assert replay(network, query, tmp_path / "said").validity is Validity.VALID
    (tmp_path / "said").write_text(text.replace(names[3], "H float32 [1,1]").rsplit("\n", 2)[0])
    shorter = replay(network, query, tmp_path / "said")
    assert shorter.validity is Validity.VALID  # what it says of outputs does not count


@pytest.mark.parametrize(
    "names", [("second", "first", "low", "high"), ("first", "second", "high", "low")]
)
def test_variables_that_are_not_the_networks_in_its_order_are_refused(
    names: tuple[str, ...], network: Path, tmp_path: Path
) -> None:
    instance = read_property(version_2(tmp_path, "(>= H[0,1] 5.9)", *names))
    with pytest.raises(InstanceError, match="declare them so, in this order") as raised:
        check_tensors(instance, "q.vnnlib", OnnxRuntime(network))
    assert raised.value.cause is Cause.SHAPE_MISMATCH


def test_variables_without_names_are_the_networks_in_its_order(
    network: Path, tmp_path: Path
) -> None:
    instance = read_property(version_2(tmp_path, "(>= H[0,1] 5.9)"))
    check_tensors(instance, "q.vnnlib", OnnxRuntime(network))
    assert instance.input_name(3) == "B[0,1]"


def test_values_of_onnx_runtime_come_in_the_order_of_the_file(network: Path) -> None:
    runtime = OnnxRuntime(network)
    assert (runtime.inputs, runtime.outputs) == (("first", "second"), ("low", "high"))
    assert runtime.sizes() == ((2, 2), (1, 2))
    assert runtime.run(np.array([1.0, 2.0, 3.0, 4.0])).tolist() == [0.0, 5.0, 6.0]
