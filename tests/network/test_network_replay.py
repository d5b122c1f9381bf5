"""The loaded network and the bound graph are held against ONNX Runtime on the original file."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_models import constant, node, save

from runner.errors import InstanceError
from runner.network import load
from runner.network.load import load_module, prepare, replay
from runner.network.runtime import OnnxRuntime
from runner.vocabulary import Cause


@pytest.fixture
def network(tmp_path: Path) -> Path:
    nodes = [node("Gemm", "x w", "h"), node("Relu", "h", "r"), node("Gemm", "r v")]
    return save(tmp_path, nodes, (1, 4), (1, 3), w=constant((4, 8)), v=constant((8, 3)))


def test_a_faithful_module_replays(network: Path) -> None:
    loaded = load_module(network)
    assert replay(OnnxRuntime(network), loaded.module, loaded.input_shape) < 1e-6


def test_a_corrupted_weight_is_refused_with_the_figure(network: Path) -> None:
    loaded = load_module(network)
    next(loaded.module.parameters())[0, 0] += 0.01
    with pytest.raises(
        InstanceError, match=r"differs .* by \d\S* relative \(one by one\)"
    ) as caught:
        replay(OnnxRuntime(network), loaded.module, loaded.input_shape)
    assert caught.value.cause is Cause.REPLAY_MISMATCH
    assert str(network) in str(caught.value)


def test_a_module_that_mixes_the_samples_of_a_batch_is_refused(network: Path) -> None:
    loaded = load_module(network)
    with pytest.raises(InstanceError, match="in a batch"):
        replay(OnnxRuntime(network), lambda x: loaded.module(x.flip(0)), loaded.input_shape)


def test_a_difference_at_a_given_point_only_is_seen(network: Path) -> None:
    loaded = load_module(network)
    far = np.full(4, 1e3)

    def wrong_far_away(x: torch.Tensor) -> torch.Tensor:
        return loaded.module(x) * torch.where(x.abs().amax(1, keepdim=True) > 100, 1.01, 1.0)

    replay(OnnxRuntime(network), wrong_far_away, loaded.input_shape)
    with pytest.raises(InstanceError, match="differs"):
        replay(OnnxRuntime(network), wrong_far_away, loaded.input_shape, points=[far])


def test_not_a_number_is_a_difference(network: Path) -> None:
    loaded = load_module(network)
    with pytest.raises(InstanceError, match="nan"):
        replay(OnnxRuntime(network), lambda x: loaded.module(x) * torch.nan, loaded.input_shape)


def test_another_number_of_outputs_is_a_difference(network: Path) -> None:
    loaded = load_module(network)
    with pytest.raises(InstanceError, match="inf"):
        replay(OnnxRuntime(network), lambda x: loaded.module(x)[:, :2], loaded.input_shape)


def test_prepare_replays_the_graph_and_not_only_the_module(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faithful = load.graph_of

    def corrupted(*arguments: object) -> object:
        graph, tensors = faithful(*arguments)  # type: ignore[arg-type]
        name = graph.nodes[1].parameters["weight"]
        return graph, tensors | {name: tensors[name] * 1.01}

    monkeypatch.setattr(load, "graph_of", corrupted)
    with pytest.raises(InstanceError) as caught:
        prepare(network, tmp_path / "prepared")
    assert caught.value.cause is Cause.REPLAY_MISMATCH
    assert not (tmp_path / "prepared").exists()


def test_onnx_runtime_takes_flat_points_of_a_gzipped_file(network: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "network.onnx.gz"
    zipped.write_bytes(gzip.compress(network.read_bytes()))
    reference = OnnxRuntime(zipped)
    point = np.array([1.0, -2.0, 0.5, 3.0])
    expected = np.maximum(point @ constant((4, 8)), 0) @ constant((8, 3))
    assert reference.input_shape == (1, 4)
    np.testing.assert_allclose(reference.run(point), expected, rtol=1e-5)


def test_onnx_runtime_names_a_point_of_the_wrong_size(network: Path) -> None:
    with pytest.raises(InstanceError, match="5 values") as caught:
        OnnxRuntime(network).run(np.zeros(5))
    assert caught.value.cause is Cause.SHAPE_MISMATCH
