"""Large weights of an ONNX file are in memory once, and ONNX Runtime reads them there."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx_models import constant, node, save

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network.load import prepare
from runner.engine.network.network_file import NetworkFile, read_network_file
from runner.problem.onnx_runtime import OnnxRuntime

WEIGHT = constant((1100, 1000))
POINT = np.linspace(-1, 1, 1000)


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    nodes = [node("Gemm", "x w", "h", transB=1), node("Relu", "h", "r"), node("Gemm", "r v")]
    return save(tmp_path, nodes, (1, 1000), (1, 3), w=WEIGHT, v=constant((1100, 3)))


def reference(path: Path, file: NetworkFile) -> OnnxRuntime:
    return OnnxRuntime(path, optimize=False, content=file.content, weights=file.weights)


def test_a_large_weight_lies_beside_the_content_and_a_small_one_in_it(wide: Path) -> None:
    file = read_network_file(wide)
    assert list(file.weights) == ["w"]
    np.testing.assert_array_equal(file.weights["w"], WEIGHT)
    assert len(file.content) < WEIGHT.nbytes / 100
    expected = OnnxRuntime(wide, optimize=False).run(POINT)
    np.testing.assert_array_equal(reference(wide, file).run(POINT), expected)


def test_onnx_runtime_computes_with_the_weight_that_is_held(wide: Path) -> None:
    file = read_network_file(wide)
    changed = NetworkFile(file.content, {"w": np.zeros_like(file.weights["w"])})
    assert (reference(wide, changed).run(POINT) == 0).all()


def test_a_network_behind_a_link_in_another_folder_is_prepared(wide: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "network.onnx.gz"
    packed = tmp_path / "packed.onnx.gz"
    packed.write_bytes(gzip.compress(wide.read_bytes(), 1))
    link.symlink_to(packed)
    assert prepare(link, tmp_path / "prepared").input.size == 1000


def test_a_large_weight_in_a_file_of_its_own_stays_there(wide: Path, tmp_path: Path) -> None:
    model = onnx.load(wide)
    apart = tmp_path / "apart" / "network.onnx"
    apart.parent.mkdir()
    onnx.save(model, apart, save_as_external_data=True, location="weights.bin")
    assert not read_network_file(apart).weights
    assert prepare(apart, tmp_path / "prepared").input.size == 1000


def test_a_large_weight_that_is_cut_short_is_malformed(wide: Path, tmp_path: Path) -> None:
    model = onnx.load(wide)
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            tensor.raw_data = tensor.raw_data[:-4]
    onnx.save(model, wide)
    assert not read_network_file(wide).weights
    with pytest.raises(InstanceError, match="'w'") as caught:
        prepare(wide, tmp_path / "prepared")
    assert caught.value.cause is Cause.MALFORMED_NETWORK


def test_a_large_weight_as_single_numbers_is_read_as_well(wide: Path, tmp_path: Path) -> None:
    model = onnx.load(wide)
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            values = numpy_helper.to_array(tensor).ravel()
            tensor.ClearField("raw_data")
            tensor.data_type = TensorProto.FLOAT
            tensor.float_data.extend(values.tolist())
    onnx.save(model, wide)
    assert not read_network_file(wide).weights
    assert prepare(wide, tmp_path / "prepared").input.size == 1000


def test_what_is_no_network_is_left_to_be_named(tmp_path: Path) -> None:
    noise = tmp_path / "noise.onnx"
    noise.write_bytes(bytes(range(1, 256)) * 20_000)
    assert read_network_file(noise) == NetworkFile(noise.read_bytes(), {})
    with pytest.raises(InstanceError, match="not a valid ONNX network"):
        prepare(noise, tmp_path / "prepared")
