"""Constants that the file computes: what is proved holds for the exact ones, not for rounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import NodeProto
from onnx_models import node, save
from small_networks import SmallNetwork

from runner.contract.vocabulary import Method
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.network.convert import converted
from runner.engine.network.load import load_graph, prepare
from runner.engine.network.translation import TRANSLATIONS

exactly = np.frompyfunc(lambda value: Fraction(float(value)), 1, 1)

A = np.array([[1 / 3, -1 / 7, 0.1], [1e4, 1 / 9, -1e4], [0.3, 0.7, 1e-3]], np.float32)
B = np.array([[0.1, 1 / 3, -0.2], [-1 / 7, 1e3, 0.9], [1 / 11, 0.3, 1e-4]], np.float32)
S = np.array(1 / 3, np.float32)
X = np.array([[0.3, -1 / 3, 7.1]], np.float32)


@dataclass(frozen=True)
class Computed:
    """A network whose constant c is computed from a and b; `exact`: its output in fractions."""

    nodes: list[NodeProto]
    exact: Callable[[Any, Any, Any], Any]

    @property
    def name(self) -> str:
        return " ".join(node.op_type for node in self.nodes)


PRODUCT = node("MatMul", "a b", "c")
COMPUTED = [
    Computed([PRODUCT, node("MatMul", "x c")], lambda x, a, b: x @ (a @ b)),
    Computed([PRODUCT, node("Gemm", "x c")], lambda x, a, b: x @ (a @ b)),
    Computed([PRODUCT, node("Gemm", "x c", transB=1)], lambda x, a, b: x @ (a @ b).T),
    Computed(
        [node("Transpose", "x", "t"), PRODUCT, node("MatMul", "c t")],
        lambda x, a, b: (a @ b) @ x.T,
    ),
    Computed(
        [node("Gemm", "a b a", "c", alpha=0.5, beta=3.0), node("MatMul", "x c")],
        lambda x, a, b: x @ (a @ b / 2 + 3 * a),
    ),
    Computed(
        [PRODUCT, node("Transpose", "c", "d"), node("Relu", "d", "e"), node("MatMul", "x e")],
        lambda x, a, b: x @ np.maximum((a @ b).T, 0),
    ),
    Computed(
        [node("ReduceSum", "a", "c", keepdims=0), node("Mul", "x c")],
        lambda x, a, b: x * a.sum(),
    ),
    Computed(
        [node("ReduceMean", "a", "c", axes=[0]), node("Add", "x c")],
        lambda x, a, b: x + a.sum(0) / 3,
    ),
    Computed(
        [node("Div", "a b", "d"), node("Gather", "d i", "c"), node("Sub", "c x")],
        lambda x, a, b: (a / b)[:1] - x,
    ),
    Computed(
        [node("Mul", "s s", "c"), node("Mul", "c s", "d"), node("Div", "x d")],
        lambda x, a, b: x / exactly(S) ** 3,
    ),
    Computed(
        [node("Mul", "a b", "d"), node("Gather", "d i", "c"), node("Concat", "x c", axis=1)],
        lambda x, a, b: np.concatenate([x, (a * b)[:1]], 1),
    ),
]


@pytest.mark.parametrize("computed", COMPUTED, ids=lambda computed: computed.name)
def test_bounds_hold_what_the_exact_constant_gives(computed: Computed, tmp_path: Path) -> None:
    exact = computed.exact(*map(exactly, (X, A, B)))
    path = save(tmp_path, computed.nodes, (1, 3), exact.shape, a=A, b=B, s=S, i=np.array([0]))
    prepare(path, tmp_path / "prepared")  # replays
    loaded = load_graph(path)
    network = SmallNetwork(loaded.graph, loaded.tensors)
    for dtype in (torch.float32, torch.float64):
        point = torch.from_numpy(X).to(dtype).reshape(1, *loaded.graph.input.shape)
        for method in (Method.IBP, Method.CROWN):
            propagator = Propagator(network.bound(), Settings(method, row_block=64))
            bounds = propagator.bound(Interval(point, point))
            both = torch.cat((torch.eye(exact.size), -torch.eye(exact.size))).to(dtype)
            least = propagator.spec_bounds(bounds, both)[:, 0].tolist()
            for index, value in enumerate(exact.reshape(-1)):
                assert Fraction(least[index]) <= value <= -Fraction(least[index + exact.size])


def test_a_constant_that_is_computed_exactly_stays_a_weight(tmp_path: Path) -> None:
    nodes = [node("Mul", "a two", "c"), node("MatMul", "x c")]
    path = save(tmp_path, nodes, (1, 3), (1, 3), a=A, two=np.array(2.0))
    loaded = load_graph(path)
    assert [n.op for n in loaded.graph.nodes] == ["input", "linear"]
    assert torch.equal(loaded.tensors["linear_1.weight"], torch.from_numpy(2 * A.T))


@pytest.mark.parametrize(
    ("made", "exact"),
    [
        (node("MatMul", "a b", "c"), lambda a, b: a @ b),
        (node("Gemm", "a b a", "c", transA=1, beta=0.5), lambda a, b: a.T @ b + a / 2),
        (node("Div", "a b", "c"), lambda a, b: a / b),
        (node("Sum", "a b a", "c"), lambda a, b: a + b + a),
        (node("ReduceSum", "a", "c"), lambda a, b: a.sum(keepdims=True)),
        (node("ReduceMean", "b", "c", axes=[1]), lambda a, b: b.sum(1, keepdims=True) / 3),
        (node("Pow", "a three", "c"), lambda a, b: a * a * a),
    ],
    ids=lambda value: getattr(value, "op_type", ""),
)
def test_the_error_of_a_constant_holds_the_exact_one(
    made: NodeProto, exact: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    a, b = A.astype(np.float64) / 3, B.astype(np.float64) / 7
    nodes, three = [made, node("Mul", "x c")], np.array(3.0)
    path = save(tmp_path, nodes, (1, 3), (3, 3), dtype=np.float64, a=a, b=b, three=three)
    found = converted(path, TRANSLATIONS.keys()).draft.rounded["c"]
    expected = np.broadcast_to(exact(exactly(a), exactly(b)), found.shape)
    distance = abs(exactly(found.value) - expected)
    assert (distance <= exactly(found.error)).all()
    assert (distance > 0).any(), "without an error it would be another constant"
    assert (found.error <= 1e-13 * abs(a).max() ** 3).all()
