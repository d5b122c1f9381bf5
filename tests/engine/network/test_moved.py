"""Values that are moved several times are moved once; pieces that keep to themselves are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx_models import constant, node, save

from runner.engine.layout.feature_shares import Shares, plan_features
from runner.engine.network.graph import Graph, Node, Op
from runner.engine.network.load import LoadedGraph, load_graph, prepare
from runner.engine.network.module import GraphModule
from runner.engine.network.moved import with_pieces


def moves(path: Path) -> list[Node]:
    return [each for each in load_graph(path).graph.nodes if each.op is Op.SELECT]


def test_transpositions_that_undo_each_other_are_none(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("Reshape", "t shape", "r"),
        node("Transpose", "r", "back", perm=[0, 3, 1, 2]),
        node("Relu", "back"),
    ]
    shape = np.array([1, 4, 1, 3])
    path = save(tmp_path, nodes, (1, 3, 4), (1, 3, 4, 1), shape=shape)
    prepare(path, tmp_path / "prepared")
    assert not moves(path)


def test_a_move_that_others_see_stays_beside_the_one_behind_it(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("Slice", "t starts ends axes", "s"),
        node("Relu", "t", "u"),
        node("Relu", "s", "v"),
        node("Concat", "u v", axis=1),
    ]
    one: dict[str, Any] = {
        name: np.array([value]) for name, value in (("starts", 1), ("ends", 3), ("axes", 1))
    }
    path = save(tmp_path, nodes, (1, 3, 4), (1, 6, 3), **one)
    prepare(path, tmp_path / "prepared")
    loaded = load_graph(path)
    assert [each.inputs for each in moves(path)] == [("input",), ("input",)]
    x = torch.arange(12.0).reshape(1, 3, 4)
    expected = torch.cat((x.mT, x.mT[:, 1:3]), 1).flatten()
    tensors = {name: tensor.clone() for name, tensor in loaded.tensors.items()}
    found = GraphModule(loaded.graph, tensors)(x.reshape(1, *loaded.graph.input.shape))
    assert found.flatten().tolist() == expected.tolist()


def attention(folder: Path, heads: int, tokens: int, length: int) -> LoadedGraph:
    """Scores of an attention as exporters write it, channels last."""
    width = heads * length
    split = np.array([1, tokens, heads, length])
    nodes = [
        node("MatMul", "x q", "queries"),
        node("MatMul", "x k", "keys"),
        node("Reshape", "queries split", "q4"),
        node("Reshape", "keys split", "k4"),
        node("Transpose", "q4", "q_of_heads", perm=[0, 2, 1, 3]),
        node("Transpose", "k4", "k_of_heads", perm=[0, 2, 3, 1]),
        node("MatMul", "q_of_heads k_of_heads", "scores"),
        node("Softmax", "scores", axis=-1),
    ]
    weights: dict[str, Any] = {name: constant((width, width)) for name in ("q", "k")}
    shapes = (1, tokens, width), (1, heads, tokens, tokens)
    path = save(folder, nodes, *shapes, split=split, **weights)
    prepare(path, folder / "prepared")
    return load_graph(path)


@pytest.mark.parametrize(("ranks", "limits"), [(2, (0, 1, 3)), (3, (0, 1, 2, 3))])
def test_an_attention_is_cut_by_heads(ranks: int, limits: tuple[int, ...], tmp_path: Path) -> None:
    graph = attention(tmp_path, heads=3, tokens=5, length=2).graph
    plan = plan_features(graph, ranks)
    (matmul,) = (each for each in graph.nodes if each.op is Op.MATMUL)
    (sums,) = (each for each in graph.nodes if each.op is Op.EXP_SUMS)
    assert plan[matmul.name] == Shares(limits)
    assert plan[sums.name] == Shares(tuple(5 * limit for limit in limits))
    convolutions = [each for each in graph.nodes if each.op is Op.CONV]
    assert {plan[each.name] for each in convolutions} == {Shares(tuple(2 * n for n in limits))}


def test_one_head_is_whole_on_every_rank(tmp_path: Path) -> None:
    graph = attention(tmp_path, heads=1, tokens=5, length=4).graph
    plan = plan_features(graph, 2)
    (matmul,) = (each for each in graph.nodes if each.op is Op.MATMUL)
    assert plan[matmul.name] in (None, Shares((0, 0, 1)))


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.data())
def test_each_piece_is_moved_within_itself(shape: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    inputs = int(np.prod(shape))
    index = np.arange(inputs).reshape(shape).transpose(order)
    graph = Graph(
        (
            Node("input", Op.INPUT, (), (inputs,)),
            Node("m", Op.SELECT, ("input",), index.shape, {}, {"index": "i"}),
        ),
        "m",
    )
    pieces = int(str(with_pieces(graph, {"i": index}).node("m").attributes["pieces"]))
    assert pieces >= (shape[0] if order[0] == 0 else 1)
    cut = index.reshape(pieces, -1)
    for number, part in enumerate(cut):
        assert (part * pieces // inputs == number).all()
