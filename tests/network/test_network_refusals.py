"""What cannot be verified is refused with a cause, naming the file and the operator."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import constant, node, save

from runner.errors import InstanceError
from runner.network.load import load_module, prepare
from runner.network.runtime import OnnxRuntime
from runner.vocabulary import Cause

UNSUPPORTED = Cause.UNSUPPORTED_OPERATOR
IMAGE = (1, 3, 6, 6)
KERNEL = constant((4, 3, 3, 3))


@dataclass(frozen=True)
class Refusal:
    name: str
    nodes: list[onnx.NodeProto]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    words: list[str]
    constants: dict[str, object] = field(default_factory=dict)
    cause: Cause = UNSUPPORTED


POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}

REFUSALS = [
    Refusal(
        "an operator without bounds",
        [node("Softmax", "x", axis=1)],
        (1, 3),
        (1, 3),
        ["Softmax", "node_y", "supported operators: Add, "],
    ),
    Refusal(
        "an operator outside the standard",
        [helper.make_node("Swish", ["x"], ["y"], "node_y", domain="own")],
        (1, 3),
        (1, 3),
        ["Swish", "node_y", "not a standard ONNX operator"],
    ),
    Refusal(
        "transpose of a computed value",
        [node("Transpose", "x", perm=[0, 2, 1])],
        (1, 2, 3),
        (1, 3, 2),
        ["Transpose", "node_y"],
    ),
    Refusal(
        "slice",
        [node("Slice", "x starts ends axes")],
        (1, 3),
        (1, 2),
        ["Slice", "node_y"],
        {"starts": np.array([0]), "ends": np.array([2]), "axes": np.array([1])},
    ),
    Refusal(
        "matmul of an input that is not flat",
        [node("MatMul", "x w")],
        (1, 2, 3),
        (1, 2, 4),
        ["MatMul", "not flat"],
        {"w": constant((3, 4))},
    ),
    Refusal(
        "matmul of two computed values",
        [node("Relu", "x", "r"), node("MatMul", "x r")],
        (1, 1, 1),
        (1, 1, 1),
        ["MatMul", "two computed values"],
    ),
    Refusal(
        "product of two computed values",
        [node("Relu", "x", "r"), node("Mul", "x r")],
        (1, 3),
        (1, 3),
        ["Mul", "computed, not constant"],
    ),
    Refusal(
        "division by a computed value",
        [node("Div", "c x")],
        (1, 3),
        (1, 3),
        ["Div", "divided by a computed value"],
        {"c": constant((3,))},
    ),
    Refusal(
        "division by zero",
        [node("Div", "x c")],
        (1, 3),
        (1, 3),
        ["Div", "divides by zero"],
        {"c": np.array([1.0, 0.0, 2.0])},
        cause=UNSUPPORTED,
    ),
    Refusal(
        "a constant that makes its input larger",
        [node("Add", "x c")],
        (1, 1, 3),
        (1, 2, 3),
        ["Add", "larger"],
        {"c": constant((2, 3))},
    ),
    Refusal(
        "a sum of two shapes",
        [node("Flatten", "x", "f"), node("Add", "x f")],
        (1, 1, 3),
        (1, 1, 3),
        ["Add", "differ in shape"],
    ),
    Refusal(
        "a reshape that loses the batch dimension",
        [node("Reshape", "x shape")],
        (1, 6),
        (2, 3),
        ["Reshape", "node_y", "batch dimension"],
        {"shape": np.array([2, 3])},
    ),
    Refusal(
        "concat with a constant",
        [node("Concat", "x c", axis=1)],
        (1, 3),
        (1, 5),
        ["Concat", "constant"],
        {"c": constant((1, 2))},
    ),
    Refusal(
        "gemm with a transposed input",
        [node("Gemm", "x w", transA=1)],
        (1, 1),
        (1, 4),
        ["Gemm", "constant matrix"],
        {"w": constant((1, 4))},
    ),
    Refusal(
        "one-dimensional conv",
        [node("Conv", "x k")],
        (1, 3, 6),
        (1, 4, 4),
        ["Conv", "two-dimensional"],
        {"k": constant((4, 3, 3))},
    ),
    Refusal(
        "asymmetric padding",
        [node("Conv", "x k", pads=[0, 0, 1, 1])],
        IMAGE,
        (1, 4, 5, 5),
        ["Conv", "symmetric"],
        {"k": KERNEL},
    ),
    Refusal(
        "automatic padding",
        [node("Conv", "x k", auto_pad="SAME_UPPER")],
        IMAGE,
        (1, 4, 6, 6),
        ["Conv", "auto_pad"],
        {"k": KERNEL},
    ),
    Refusal(
        "rounding up a pool's shape",
        [node("MaxPool", "x", ceil_mode=1, **POOL)],
        (1, 3, 5, 5),
        (1, 3, 3, 3),
        ["MaxPool", "ceil_mode"],
    ),
    Refusal(
        "a dilated pool",
        [node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2])],
        IMAGE,
        (1, 3, 4, 4),
        ["MaxPool", "dilated"],
    ),
    Refusal(
        "average pool without its padding",
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        IMAGE,
        (1, 3, 6, 6),
        ["AveragePool", "padding that does not count"],
    ),
    Refusal(
        "a batch of two",
        [node("Relu", "x")],
        (2, 3),
        (2, 3),
        ["[2, 3]", "batch dimension of 1"],
        cause=Cause.UNSUPPORTED_INSTANCE,
    ),
    Refusal(
        "an output that does not depend on the input",
        [node("Relu", "x", "unused"), node("Identity", "c")],
        (1, 3),
        (1, 2),
        ["does not depend on the input"],
        {"c": constant((1, 2))},
        cause=Cause.MALFORMED_NETWORK,
    ),
]


def refused(path: Path) -> InstanceError:
    with pytest.raises(InstanceError) as caught:
        prepare(path, path.with_suffix(".prepared"))
    assert str(path) in str(caught.value)
    assert not path.with_suffix(".prepared").exists()
    return caught.value


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_refused_with_cause_and_operator(refusal: Refusal, tmp_path: Path) -> None:
    shapes = refusal.input_shape, refusal.output_shape
    error = refused(save(tmp_path, refusal.nodes, *shapes, **refusal.constants))
    assert error.cause is refusal.cause
    for word in refusal.words:
        assert word in str(error)


def test_missing_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.onnx").cause is Cause.MISSING_FILE
    with pytest.raises(InstanceError) as caught:
        OnnxRuntime(tmp_path / "absent.onnx")
    assert caught.value.cause is Cause.MISSING_FILE


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".onnx", ".onnx.gz"])
def test_truncated_file(share: float, suffix: str, tmp_path: Path) -> None:
    whole = save(tmp_path, [node("Gemm", "x w")], (1, 3), (1, 40), w=constant((3, 40))).read_bytes()
    content = gzip.compress(whole) if suffix.endswith("gz") else whole
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: int(len(content) * share)])
    assert refused(path).cause is Cause.MALFORMED_NETWORK
    with pytest.raises(InstanceError) as caught:
        OnnxRuntime(path)
    assert caught.value.cause is Cause.MALFORMED_NETWORK


def test_garbage(tmp_path: Path) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert refused(path).cause is Cause.MALFORMED_NETWORK


def test_weight_of_the_wrong_shape(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Gemm", "x w")], (1, 3), (1, 4), w=constant((5, 4)))
    assert refused(path).cause is Cause.MALFORMED_NETWORK


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    weight = constant((4, 3))
    weight[1, 2] = value
    path = save(tmp_path, [node("Gemm", "x w")], (1, 4), (1, 3), w=weight)
    with pytest.raises(InstanceError, match=r"linear_1\.weight are not all finite") as raised:
        prepare(path, tmp_path / "prepared")
    assert raised.value.cause is Cause.MALFORMED_NETWORK
    assert str(path) in str(raised.value)


def test_several_inputs(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Relu", "x")], (1, 3), (1, 3))
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 3)))
    onnx.save(model, path)
    error = refused(path)
    assert error.cause is Cause.UNSUPPORTED_INSTANCE
    assert "2 inputs" in str(error)
    with pytest.raises(InstanceError, match="2 inputs") as caught:
        OnnxRuntime(path)
    assert caught.value.cause is Cause.UNSUPPORTED_INSTANCE


def test_weights_in_other_files(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Gemm", "x w")], (1, 30), (1, 40), w=constant((30, 40)))
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    error = refused(path)
    assert error.cause is Cause.UNSUPPORTED_INSTANCE
    assert "single file" in str(error)


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, [node("Softmax", "x", axis=1)], (1, 3), (1, 3))
    with pytest.raises(InstanceError):
        load_module(path)
    path = save(tmp_path, [node("Relu", "x", "r"), node("Flatten", "r")], (1, 3), (1, 3))
    prepare(path, tmp_path / "prepared")
    assert capfd.readouterr() == ("", "")
