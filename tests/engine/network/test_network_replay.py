"""The bound graph is held against ONNX Runtime on the original file, each output by itself."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_models import constant, node, save

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network import load
from runner.engine.network.graph_replay import box_points, replay
from runner.engine.network.load import LoadedGraph, load_graph, prepare
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.model import Case, Property


@pytest.fixture
def network(tmp_path: Path) -> Path:
    nodes = [node("Gemm", "x w", "h"), node("Relu", "h", "r"), node("Gemm", "r v")]
    return save(tmp_path, nodes, (1, 4), (1, 3), w=constant((4, 8)), v=constant((8, 3)))


def changed(loaded: LoadedGraph, parameter: str, index: tuple[int, ...], by: float) -> LoadedGraph:
    """The same network with one entry of a parameter changed by a factor."""
    tensor = loaded.tensors[parameter].clone()
    tensor[index] *= by
    return LoadedGraph(loaded.graph, loaded.tensors | {parameter: tensor})


def held_against(
    path: Path, loaded: LoadedGraph, points: tuple[np.ndarray, ...] = ()
) -> InstanceError | None:
    try:
        replay(OnnxRuntime(path), loaded.graph, loaded.tensors, points)
    except InstanceError as error:
        return error
    return None


def test_a_faithful_graph_replays(network: Path) -> None:
    assert held_against(network, load_graph(network)) is None


def test_a_changed_weight_is_refused_with_output_and_figures(network: Path) -> None:
    error = held_against(network, changed(load_graph(network), "linear_3.weight", (1, 0), 1.001))
    assert error is not None
    assert error.cause is Cause.REPLAY_MISMATCH
    assert f"{network}: the loaded network differs from ONNX Runtime by " in str(error)
    assert "in output 1, which is" in str(error)
    assert "rounding explains" in str(error)


def test_a_small_output_is_not_hidden_by_a_large_one(tmp_path: Path) -> None:
    weight = np.array([[1e6, 1e-3], [2e6, 3e-3]])
    path = save(tmp_path, [node("Gemm", "x w")], (1, 2), (1, 2), w=weight)
    loaded = load_graph(path)
    assert held_against(path, loaded) is None
    error = held_against(path, changed(loaded, "linear_1.weight", (1, 1), 1.01))
    assert error is not None
    assert "in output 1" in str(error)


def test_what_rounding_explains_is_no_difference(tmp_path: Path) -> None:
    """float32 keeps 0.00006 of x + 1000 - 1000."""
    nodes = [node("Add", "x c", "h"), node("Sub", "h c")]
    path = save(tmp_path, nodes, (1, 3), (1, 3), c=np.full(3, 1000.0))
    assert held_against(path, load_graph(path)) is None


def test_the_tolerance_of_float64_is_its_own(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Gemm", "x w")], (1, 2), (1, 2), dtype=np.float64, w=np.eye(2))
    loaded = load_graph(path)
    assert held_against(path, loaded) is None
    rounded_away = changed(loaded, "linear_1.weight", (0, 0), 1 + 1e-12)
    assert held_against(path, rounded_away) is not None


def test_a_difference_in_the_box_alone_is_seen(tmp_path: Path) -> None:
    """The second neuron is not active but near 1000."""
    nodes = [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("Gemm", "r v")]
    weights: dict[str, Any] = {
        "w": np.ones((1, 2)),
        "b": np.array([0.0, -900.0]),
        "v": np.ones((2, 1)),
    }
    path = save(tmp_path, nodes, (1, 1), (1, 1), **weights)
    wrong = changed(load_graph(path), "linear_1.weight", (1, 0), 1.01)
    assert held_against(path, wrong) is None
    case = Case(np.array([999.0]), np.array([1001.0]), ())
    assert held_against(path, wrong, tuple(box_points(Property(1, 1, (case,))))) is not None


def test_box_points_are_the_centre_corners_and_others_of_boxes_spread_over_all() -> None:
    cases = tuple(Case(np.array([n, 0.0]), np.array([n + 1.0, 2.0]), ()) for n in range(100))
    points = np.array(box_points(Property(2, 1, cases)))
    assert [0.5, 1.0] in points.tolist()
    assert [0.0, 0.0] in points.tolist()
    assert [1.0, 2.0] in points.tolist()
    assert len(points) == 20
    assert points[:, 0].max() > 75
    assert (points[:, 1] >= 0).all()
    assert (points[:, 1] <= 2).all()


def test_not_a_number_is_a_difference(network: Path) -> None:
    wrong = changed(load_graph(network), "linear_3.bias", (0,), 1.0)
    wrong.tensors["linear_3.bias"][0] = torch.nan
    assert held_against(network, wrong) is not None


def test_an_overflow_under_onnx_runtime_is_named(tmp_path: Path) -> None:
    nodes = [node("Mul", "x c", "h"), node("Mul", "h c")]
    path = save(tmp_path, nodes, (1, 2), (1, 2), c=np.array([1.0, 1e30]))
    error = held_against(path, load_graph(path))
    assert error is not None
    assert "no finite number for output 1: values overflow float32" in str(error)


def test_prepare_replays_the_graph(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faithful = load.load_graph
    monkeypatch.setattr(
        load,
        "load_graph",
        lambda *given: changed(faithful(*given), "linear_1.weight", (0, 0), 1.01),
    )
    with pytest.raises(InstanceError) as caught:
        prepare(network, tmp_path / "prepared")
    assert caught.value.cause is Cause.REPLAY_MISMATCH
    assert not (tmp_path / "prepared").exists()


def test_a_float16_network_is_computed_in_float32_where_rounding_changes_little(
    tmp_path: Path,
) -> None:
    nodes = [node("Gemm", "x w", "h"), node("Relu", "h", "r"), node("Gemm", "r v")]
    weights: dict[str, Any] = {"w": constant((4, 8)), "v": constant((8, 3))}
    path = save(tmp_path, nodes, (1, 4), (1, 3), dtype=np.float16, **weights)
    graph = prepare(path, tmp_path / "prepared")
    assert graph.dtype == "float32"


def test_a_float16_network_that_rounding_changes_is_refused_with_the_tolerance(
    tmp_path: Path,
) -> None:
    path = save(
        tmp_path, [node("Mul", "x c")], (1, 3), (1, 3), dtype=np.float16, c=np.full(3, 1e-6)
    )
    with pytest.raises(InstanceError, match=r"float16 .* rounds by .* up to 1%") as caught:
        prepare(path, tmp_path / "prepared")
    assert caught.value.cause is Cause.UNSUPPORTED_INSTANCE
    assert str(path) in str(caught.value)


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
