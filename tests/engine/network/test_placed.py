"""x[:, p:q] = v where p and q are computed: the networks of cctsdb_yolo place a patch so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import node, save
from small_networks import SmallNetwork, box_of
from sound_bounds import assert_sound

from runner.contract.errors import InstanceError
from runner.engine.bounds.interval import Interval
from runner.engine.network.graph_replay import replay
from runner.engine.network.load import load_graph
from runner.problem.onnx_runtime import OnnxRuntime

OPSET = 11  # of the networks that do so


def grid(rows: str, columns: str, value: str = "zero") -> list[onnx.NodeProto]:
    """Ones where `rows` and `columns` do not meet, of positions of [2, 4]."""
    return [
        node("Add", f"{rows} {columns}", "met"),
        node("Shape", "met", "size"),
        node("Expand", f"{rows} size", "r"),
        node("Expand", f"{columns} size", "c"),
        node("Unsqueeze", "r", "r1", axes=[-1]),
        node("Unsqueeze", "c", "c1", axes=[-1]),
        node("Concat", "r1 c1", "places", axis=-1),
        node("Expand", f"{value} size", "patch"),
        node("ScatterND", "ones places patch", "mask"),
        node("Mul", "image mask"),
    ]


def network(folder: Path, rest: list[onnx.NodeProto], **more: np.ndarray) -> Path:
    """x is an image of [2, 4], and then from where to where."""

    def gather(name: str, index: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Gather", ["x", index], [f"{name} real"], axis=0),
            helper.make_node("Cast", [f"{name} real"], [name], to=TensorProto.INT64),
        ]

    nodes = [
        helper.make_node("Slice", ["x", "none", "eight", "none", "step"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["image"]),
        *gather("start", "eight"),
        *gather("stop", "nine"),
        helper.make_node("Slice", ["four", "start", "stop", "none", "step"], ["columns"]),
        *rest,
    ]
    constants = {
        "none": np.array([0]),
        "step": np.array([1]),
        "eight": np.array([8]),
        "nine": np.array([9]),
        "shape": np.array([2, 4]),
        "four": np.arange(4),
        "two": np.arange(2)[:, None],
        "zero": np.zeros((1, 1)),
        "ones": np.ones((2, 4)),
        **more,
    }
    return save(folder, nodes, (10,), (2, 4), opset=OPSET, **constants)


def test_a_patch_lies_where_onnx_runtime_puts_it(tmp_path: Path) -> None:
    """Also where it is counted from behind, or lies beyond, or is nothing."""
    path = network(tmp_path, grid("two", "columns"))
    loaded = load_graph(path)
    image = np.arange(1.0, 9.0)
    ends = [(p, q) for p in range(-5, 6) for q in range(-5, 6)]
    reference = OnnxRuntime(path)
    points = [np.array([*image, *pair]) for pair in ends]
    assert replay(reference, loaded.graph, loaded.tensors, points) == 0.0
    shown = reference.run(np.array([*image, 1.0, 3.0])).reshape(2, 4)
    assert shown.tolist() == [[1.0, 0.0, 0.0, 4.0], [5.0, 0.0, 0.0, 8.0]]


@pytest.mark.slow
@pytest.mark.parametrize("radius", [0.0, 0.3, 1.6])
def test_what_is_placed_stays_within_its_bounds(radius: float, tmp_path: Path) -> None:
    loaded = load_graph(network(tmp_path, grid("two", "columns")))
    small = SmallNetwork(loaded.graph, loaded.tensors)
    box = box_of(small, 0.1)
    ends = torch.tensor([1.2, 2.4])
    lower, upper = box.lower.clone(), box.upper.clone()
    lower[0, 8:], upper[0, 8:] = ends - radius, ends + radius
    assert_sound(small, Interval(lower, upper), torch.float64)


@pytest.mark.parametrize(
    ("rest", "more"),
    [
        # A diagonal: both run along one dimension.
        (
            grid("line", "columns"),
            {"line": np.arange(4), "ones": np.ones((4, 4)), "shape": np.array([2, 1, 4])},
        ),
        (grid("two", "columns", "patches"), {"patches": np.array([[1.0], [2.0]])}),
    ],
    ids=["diagonal", "several values"],
)
def test_any_other_way_to_place_values_is_refused(
    rest: list[onnx.NodeProto], more: dict[str, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(InstanceError, match="is not supported"):
        load_graph(network(tmp_path, rest, **more))
