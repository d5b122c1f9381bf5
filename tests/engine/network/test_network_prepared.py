"""The prepared network: a graph and weights in one file, read piece by piece."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network.blocks import cut_weights, weights_of
from runner.engine.network.graph import Attribute, Dtype, Graph, Node, Op
from runner.engine.network.prepared import PreparedWeights, read_graph, write_prepared

CONV: dict[str, Attribute] = {"stride": (2, 1), "padding": (0, 1), "dilation": (1, 1), "groups": 1}
GRAPH = Graph(
    (
        Node("input", Op.INPUT, (), (3, 4, 4)),
        Node("c", Op.CONV, ("input",), (2, 2, 4), CONV, {"weight": "c.weight", "bias": "c.bias"}),
        Node("y", Op.RESHAPE, ("c",), (16,)),
    ),
    "y",
)
TENSORS = {"c.weight": torch.randn(2, 3, 1, 3), "c.bias": torch.randn(2)}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_prepared(tmp_path / "p", GRAPH, TENSORS)
    assert read_graph(tmp_path / "p") == GRAPH
    weights = PreparedWeights(tmp_path / "p")
    for name, tensor in TENSORS.items():
        assert weights.shape(name) == tensor.shape
        assert torch.equal(weights.tensor(name), tensor)


def linear_graph(inputs: int, outputs: int) -> Graph:
    linear = Node("y", Op.LINEAR, ("x",), (outputs,), {}, {"weight": "w", "bias": "b"})
    return Graph((Node("x", Op.INPUT, (), (inputs,)), linear), "y")


def test_a_weight_lies_in_column_blocks_and_any_columns_can_be_read(tmp_path: Path) -> None:
    weight = torch.randn(256, 1000)
    write_prepared(tmp_path / "p", linear_graph(1000, 256), {"w": weight, "b": torch.zeros(256)})
    with safe_open(tmp_path / "p", "pt") as file:
        keys = file.offset_keys()
        sizes = [file.get_tensor(key).nbytes for key in keys if key.startswith("w")]
    assert sum(sizes) == weight.nbytes
    assert max(sizes) <= weight.nbytes / 15
    weights = PreparedWeights(tmp_path / "p")
    assert weights.shape("w") == weight.shape
    assert torch.equal(weights.tensor("w"), weight)
    for start, stop in ((0, 64), (64, 128), (10, 30), (60, 700), (999, 1000)):
        assert torch.equal(weights.columns("w", start, stop), weight[:, start:stop])


def test_float64_weights_lie_in_blocks_of_as_many_bytes(tmp_path: Path) -> None:
    weight = torch.randn(256, 1000, dtype=torch.float64)
    graph = replace(linear_graph(1000, 256), dtype=Dtype.FLOAT64)
    tensors = {"w": weight, "b": torch.zeros(256, dtype=torch.float64)}
    write_prepared(tmp_path / "p", graph, tensors)
    assert read_graph(tmp_path / "p") == graph
    weights = PreparedWeights(tmp_path / "p")
    assert torch.equal(weights.tensor("w"), weight)
    cuts = cut_weights(weights_of(graph, weights.shape))
    assert sum(cut.bytes for cut in cuts) == weight.nbytes
    for cut in cuts:
        assert weights.columns("w", cut.start, cut.stop).nbytes == cut.bytes


def test_a_block_owns_its_bytes_and_no_more(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(256, 1000), "b": torch.zeros(256)}
    write_prepared(tmp_path / "p", linear_graph(1000, 256), tensors)
    weights = PreparedWeights(tmp_path / "p")
    (first, *_) = cut_weights(weights_of(linear_graph(1000, 256), weights.shape))
    for part in (weights.columns("w", first.start, first.stop), weights.tensor("b")):
        assert part.is_contiguous()
        assert part.untyped_storage().nbytes() == part.numel() * 4


def test_parts_outlive_a_file_that_is_replaced(tmp_path: Path) -> None:
    write_prepared(tmp_path / "p", GRAPH, TENSORS)
    before = PreparedWeights(tmp_path / "p").tensor("c.bias")
    write_prepared(tmp_path / "p", GRAPH, {name: t + 1 for name, t in TENSORS.items()})
    assert torch.equal(before, TENSORS["c.bias"])


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    write_prepared(tmp_path / "p", GRAPH, TENSORS)
    before = (tmp_path / "p").read_bytes()
    with pytest.raises(RuntimeError, match="memory format"):
        write_prepared(tmp_path / "p", GRAPH, TENSORS | {"a": torch.zeros(4).to_sparse()})
    assert (tmp_path / "p").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_tensors_that_share_memory_are_written_each_by_itself(tmp_path: Path) -> None:
    shared = torch.arange(8.0)
    write_prepared(tmp_path / "p", GRAPH, TENSORS | {"a": shared, "b": shared[2:5]})
    weights = PreparedWeights(tmp_path / "p")
    assert torch.equal(weights.tensor("a"), shared)
    assert torch.equal(weights.tensor("b"), shared[2:5])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_graph, PreparedWeights):
        with pytest.raises(InstanceError, match="absent") as caught:
            read(tmp_path / "absent")
        assert caught.value.cause is Cause.MISSING_FILE


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    write_prepared(tmp_path / "p", GRAPH, TENSORS)
    cut = tmp_path / "cut"
    cut.write_bytes((tmp_path / "p").read_bytes()[:-3])
    foreign = tmp_path / "foreign"
    save_file(TENSORS, foreign)
    for path in (cut, foreign):
        with pytest.raises(InstanceError, match=path.name) as caught:
            read_graph(path)
        assert caught.value.cause is Cause.MALFORMED_NETWORK


def test_a_graph_is_read_without_torch(tmp_path: Path) -> None:
    write_prepared(tmp_path / "p", GRAPH, TENSORS)
    code = (
        "import sys; from pathlib import Path; "
        "from runner.engine.network.prepared import read_graph; "
        f"read_graph(Path({str(tmp_path / 'p')!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
