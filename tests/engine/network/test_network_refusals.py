"""What cannot be verified is refused with a cause, naming the file and the operator."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx_models import OPSET, constant, node, save

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network.load import load_module, prepare
from runner.engine.network.prepared import PreparedWeights
from runner.problem.onnx_runtime import OnnxRuntime

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
    constants: dict[str, Any] = field(default_factory=dict)
    cause: Cause = UNSUPPORTED
    opset: int = OPSET


REFUSALS = [
    Refusal(
        "an operator without bounds",
        [node("Tan", "x")],
        (1, 3),
        (1, 3),
        ["Tan", "node_y", "supported operators: Abs, Add, "],
    ),
    Refusal(
        "batch normalisation in training",
        [node("BatchNormalization", "x one one one one", training_mode=1)],
        (1, 3),
        (1, 3),
        ["BatchNormalization (node 'node_y')", "training mode", "model.eval()"],
        {"one": np.ones(3)},
        opset=15,
    ),
    Refusal(
        "batch normalisation in training, as old opsets say it",
        [helper.make_node("BatchNormalization", ["x", *["one"] * 4], ["y", "m", "v"], "norm")],
        (1, 3),
        (1, 3),
        ["BatchNormalization (node 'norm')", "training mode"],
        {"one": np.ones(3)},
        opset=9,
    ),
    Refusal(
        "dropout in training",
        [node("Dropout", "x ratio training")],
        (1, 3),
        (1, 3),
        ["Dropout (node 'node_y')", "training mode"],
        {"ratio": np.array(0.5), "training": np.array(True)},
    ),
    Refusal(
        "a variance that is not positive",
        [node("BatchNormalization", "x one one one minus")],
        (1, 2),
        (1, 2),
        ["BatchNormalization", "not positive"],
        {"one": np.ones(2), "minus": -np.ones(2)},
    ),
    Refusal(
        "a node without a name is called by its output",
        [helper.make_node("Tan", ["x"], ["y"])],
        (1, 3),
        (1, 3),
        ["operator Tan (node 'y')"],
    ),
    Refusal(
        "a constant whose rounding is not known",
        [node("Exp", "third", "c"), node("Mul", "x c")],
        (1, 2),
        (1, 2),
        ["operator Exp (node 'node_c')", "constants folded"],
        {"third": np.array([1 / 3, 1.0])},
    ),
    Refusal(
        "a rounded constant where there are no errors of constants",
        [node("Mul", "k seventh", "c"), node("Conv", "x c")],
        (1, 1, 3, 3),
        (1, 1, 3, 3),
        ["operator Conv (node 'node_y')", "its constant 'c'", "constants folded"],
        {"k": np.full((1, 1, 1, 1), 1 / 3), "seventh": np.array(1 / 7)},
    ),
    Refusal(
        "an operator outside the standard",
        [helper.make_node("Swish", ["x"], ["y"], "node_y", domain="own")],
        (1, 3),
        (1, 3),
        ["Swish", "node_y", "not a standard ONNX operator"],
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
        "a power of a base that is not positive",
        [node("Pow", "c x")],
        (1, 3),
        (1, 3),
        ["operator Pow (node 'node_y')", "its base not positive"],
        {"c": np.array([1.0, -2.0, 2.0])},
    ),
    Refusal(
        "integers that wrap around",
        [
            node("QuantizeLinear", "x s z", "q"),
            node("Add", "q q", "r"),
            node("DequantizeLinear", "r s z"),
        ],
        (1, 3),
        (1, 3),
        ["operator Add (node 'node_r')", "uint8, which wraps around"],
        {"s": np.ones(()), "z": np.array(0, np.uint8)},
        opset=14,
    ),
    Refusal(
        "a division of integers",
        [
            node("Cast", "x", "i", to=TensorProto.INT64),
            node("Div", "i two", "h"),
            node("Cast", "h", to=TensorProto.FLOAT),
        ],
        (1, 3),
        (1, 3),
        ["operator Div (node 'node_h')", "rounds integers"],
        {"two": np.array(2)},
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


def refusal_of(path: Path) -> InstanceError | None:
    try:
        prepare(path, path.with_suffix(".prepared"))
    except InstanceError as error:
        return error
    return None


def refused(path: Path) -> InstanceError:
    with pytest.raises(InstanceError) as caught:
        prepare(path, path.with_suffix(".prepared"))
    assert str(path) in str(caught.value)
    assert not path.with_suffix(".prepared").exists()
    return caught.value


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_refused_with_cause_and_operator(refusal: Refusal, tmp_path: Path) -> None:
    shapes = refusal.input_shape, refusal.output_shape
    error = refused(save(tmp_path, refusal.nodes, *shapes, refusal.opset, **refusal.constants))
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


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_weights_that_are_no_numbers(value: float, word: str, tmp_path: Path) -> None:
    weight = constant((4, 3))
    weight[1, 2] = value
    error = refused(save(tmp_path, [node("Gemm", "x kernel")], (1, 4), (1, 3), kernel=weight))
    assert error.cause is Cause.MALFORMED_NETWORK
    assert f"a value of the weight 'kernel' is {word}" in str(error)


def test_several_inputs_of_several_types(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Relu", "x")], (1, 3), (1, 3))
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.DOUBLE, (1, 3)))
    onnx.save(model, path)
    error = refused(path)
    assert error.cause is Cause.UNSUPPORTED_INSTANCE
    assert "inputs 'x', 'z' are of several types" in str(error)
    with pytest.raises(InstanceError, match="2 inputs of 2 types") as caught:
        OnnxRuntime(path)
    assert caught.value.cause is Cause.UNSUPPORTED_INSTANCE


@pytest.fixture
def scattered(tmp_path: Path) -> Path:
    """A network whose weight `w` lies in the file `weights` beside it."""
    path = save(tmp_path, [node("Gemm", "x w")], (1, 30), (1, 40), w=constant((30, 40)))
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    return path


def test_weights_in_a_file_beside_the_network_are_read(scattered: Path, tmp_path: Path) -> None:
    prepare(scattered, tmp_path / "prepared")
    weight = PreparedWeights(tmp_path / "prepared").tensor("linear_1.weight")
    np.testing.assert_array_equal(weight.numpy(), constant((30, 40)).T)


def test_a_missing_file_of_weights_is_named(scattered: Path) -> None:
    (scattered.parent / "weights").unlink()
    error = refused(scattered)
    assert error.cause is Cause.MISSING_FILE
    assert "the weight 'w' lies in 'weights'; there is no such file" in str(error)


def test_a_file_of_weights_that_is_cut_is_named(scattered: Path) -> None:
    weights = scattered.parent / "weights"
    weights.write_bytes(weights.read_bytes()[:-8])
    error = refused(scattered)
    assert error.cause is Cause.MALFORMED_NETWORK
    assert "the weight 'w' lies in 'weights', which cannot be read" in str(error)


def test_weights_outside_the_folder_of_the_network_are_not_read(
    scattered: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    model = onnx.load(scattered, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights"
    (folder / "network.onnx").write_bytes(model.SerializeToString())
    error = refused(folder / "network.onnx")
    assert error.cause is Cause.MALFORMED_NETWORK
    assert "'../weights', which is no file in the network's folder" in str(error)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_is_told_from_a_network(kind: str, tmp_path: Path) -> None:
    network = save(tmp_path, [node("Relu", "x")], (1, 3), (1, 3))
    packed = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(network, "network.onnx")
    else:
        with zipfile.ZipFile(packed, "w") as archive:
            archive.write(network, "network.onnx")
    path = tmp_path / "packed.onnx.gz"
    path.write_bytes(gzip.compress(packed.getvalue()))
    error = refused(path)
    assert error.cause is Cause.MALFORMED_NETWORK
    assert f"it is a {kind} archive); unpack it" in str(error)


def edited(path: Path, edit: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(path)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_versions_that_are_not_known_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Relu", "x")], (1, 3), (1, 3))
    error = refused(edited(path, lambda model: setattr(model, "ir_version", 99)))
    assert error.cause is Cause.UNSUPPORTED_INSTANCE
    assert "IR version 99" in str(error)
    assert "model.ir_version = 10" in str(error)
    for opset in (3, 999):
        path = save(tmp_path, [node("Relu", "x")], (1, 3), (1, 3), opset)
        error = refused(path)
        assert error.cause is Cause.UNSUPPORTED_INSTANCE
        assert f"opset {opset} is not known" in str(error)


def test_a_name_that_is_no_text_is_malformed(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Relu", "x")], (1, 3), (1, 3))
    path.write_bytes(path.read_bytes().replace(b"node_y", b"node_\xff"))
    error = refused(path)
    assert error.cause is Cause.MALFORMED_NETWORK
    assert "a name in it is not text" in str(error)
    assert "download it again" in str(error)


def test_an_input_of_integers_is_unsupported(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Neg", "x")], (1, 3), (1, 3), dtype=np.int32)
    error = refused(path)
    assert error.cause is Cause.UNSUPPORTED_INSTANCE
    assert "input 'x' is int32" in str(error)


def with_function(folder: Path, *inside: NodeProto) -> Path:
    """A network of one node, own.Twice, which a function of the file computes from a to b."""
    path = save(folder, [helper.make_node("Twice", ["x"], ["y"], domain="own")], (1, 3), (1, 3))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Twice", ["a"], ["b"], list(inside), opsets)

    def change(model: ModelProto) -> None:
        model.functions.append(function)
        model.opset_import.append(helper.make_opsetid("own", 1))

    return edited(path, change)


def test_a_function_of_the_network_s_own_is_written_out(tmp_path: Path) -> None:
    path = with_function(tmp_path, node("Add", "a a", "h"), node("Relu", "h", "b"))
    graph = prepare(path, tmp_path / "prepared")
    assert graph.node(graph.output).op == "relu"


def test_an_operator_in_a_function_is_refused_by_name(tmp_path: Path) -> None:
    error = refused(with_function(tmp_path, node("Hardmax", "a", "b")))
    assert error.cause is UNSUPPORTED
    assert "operator Hardmax" in str(error)


def test_what_onnx_runtime_cannot_compute_in_float64_is_unsupported(tmp_path: Path) -> None:
    nodes = [node("Conv", "x k", "c"), node("Flatten", "c")]
    path = save(tmp_path, nodes, (1, 3, 3, 3), (1, 4), dtype=np.float64, k=KERNEL)
    error = refused(path)
    assert error.cause is UNSUPPORTED
    assert "Conv" in str(error)
    assert "convert the network to float32" in str(error)


def test_nodes_in_a_circle_are_malformed(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Add", "x b", "a"), node("Relu", "a", "b")], (1, 3), (1, 3))
    assert "its nodes form a cycle" in str(refused(path))


BLOWN_UP = {
    "padding": [node("Conv", "x k", "c", pads=[10000] * 4), node("Flatten", "c")],
    "a constant": [node("ConstantOfShape", "many", "c"), node("Add", "x c")],
    "a constant of constants": [node("Expand", "one many", "c"), node("Add", "x c")],
    "a range": [
        node("Range", "zero limit step", "c"),
        node("Cast", "c", "f", to=TensorProto.FLOAT),
        node("Add", "x f"),
    ],
    "dimensions": [node("Reshape", "x shape", "c"), node("Flatten", "c")],
}


@pytest.mark.parametrize("name", BLOWN_UP)
def test_what_a_small_file_blows_up_is_refused_before_memory_is_taken(
    name: str, tmp_path: Path
) -> None:
    constants: dict[str, Any] = {
        "k": np.ones((1, 1, 3, 3)),
        "many": np.array([400_000_000]),
        "one": np.ones(1),
        "shape": np.ones(100_000, dtype=np.int64),
        "zero": np.array(0),
        "limit": np.array(10**12),
        "step": np.array(1),
    }
    error = refused(save(tmp_path, BLOWN_UP[name], (1, 1, 1, 1), (1, 2), **constants))
    assert error.cause is Cause.UNSUPPORTED_INSTANCE
    assert f"'c' (operator {BLOWN_UP[name][0].op_type})" in str(error)


def test_an_input_of_any_size_is_refused(tmp_path: Path) -> None:
    for shape in ((1, 2**62), (1,) * 1000):
        error = refused(save(tmp_path, [node("Relu", "x")], shape, shape))
        assert error.cause is Cause.UNSUPPORTED_INSTANCE
        assert "'x' has " in str(error)


@pytest.mark.slow
def test_bytes_changed_anywhere_end_in_an_error_that_names_file_and_remedy(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x k b", "c", strides=[2, 2]),
        node("Relu", "c", "r"),
        node("Reshape", "r shape", "f"),
        node("Gemm", "f w", alpha=0.5),
    ]
    weights: dict[str, Any] = {
        "k": KERNEL,
        "b": constant((4,)),
        "w": constant((16, 2)),
        "shape": [1, -1],
    }
    path = save(tmp_path, nodes, IMAGE, (1, 2), **weights)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(content)
        changed[generator.integers(len(content))] = generator.integers(256)
        path.write_bytes(changed)
        error = refusal_of(path)
        assert error is None or str(path) in str(error)
        assert error is None or error.cause is not Cause.INTERNAL_ERROR


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, [node("Tan", "x")], (1, 3), (1, 3))
    with pytest.raises(InstanceError):
        load_module(path)
    path = save(tmp_path, [node("Relu", "x", "r"), node("Flatten", "r")], (1, 3), (1, 3))
    prepare(path, tmp_path / "prepared")
    assert capfd.readouterr() == ("", "")
