"""Strict and tied properties: decided in fractions, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from questions import DriverStub, case, identity, question, region, save_onnx
from small_networks import CPU, Builder, SmallNetwork, mlp

from runner.contract.vocabulary import Cause, Method, Verdict
from runner.engine.clock import Deadline
from runner.engine.exact import excluded_exactly
from runner.engine.finding import Confirmation, Finding
from runner.engine.layout.group import Group
from runner.engine.measure.probe import Probe
from runner.engine.network.graph import Op
from runner.engine.search.search import Progress
from runner.engine.verification import Verification
from runner.problem.property.model import Conjunction


def twins() -> SmallNetwork:
    """Two outputs that are computed alike: relu(x_0 + x_1) + 0.1 x_0."""
    builder = Builder((2,))
    weight = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    x = builder.pointwise(Op.RELU, builder.linear_of("x", weight, torch.tensor([0.0, 0.0, 9.0])))
    last = torch.tensor([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1]])
    return builder.network(builder.linear_of(x, last, torch.zeros(2)))


def excluded(network: SmallNetwork, unsafe: Conjunction, limit: float = 1.0) -> bool:
    size = network.graph.input.size
    one = case([-limit] * size, [limit] * size, unsafe)
    return excluded_exactly(network.graph, network.source, one, 0)


def test_equal_outputs_are_never_strictly_apart_and_may_tie() -> None:
    assert excluded(twins(), region([[1, -1]], [0], strict=True))
    assert not excluded(twins(), region([[1, -1]], [0]))


def test_a_box_that_ends_at_a_strict_threshold_never_passes_it() -> None:
    assert excluded(identity(), region([[-1]], [-0.5], strict=True), limit=0.5)
    assert not excluded(identity(), region([[-1]], [-0.5]), limit=0.5)
    assert not excluded(identity(), region([[-1]], [-0.5 + 2**-40], strict=True), limit=0.5)


def test_one_row_of_a_conjunction_is_enough() -> None:
    rows = [[1, -1], [0, 0]]
    assert excluded(twins(), region(rows, [0, 1], strict=True))


def test_what_is_large_or_unknown_is_left_open() -> None:
    never = region([[1.0]], [-1e9], strict=True)
    assert excluded(mlp(2, 4, 1), never)
    assert not excluded(mlp(2, 700, 700, 1), never)
    builder = Builder((2,))
    smooth = builder.network(builder.pointwise(Op.TANH, builder.linear("x", 1)))
    assert not excluded(smooth, never)


def test_coefficients_that_the_property_rounded_decide_nothing() -> None:
    assert not excluded(twins(), region([[0.1, -0.1]], [0], strict=True))


def verified(network: SmallNetwork, unsafe: Conjunction, folder: Path) -> Finding:
    size = network.graph.input.size
    instance = question(case([-1.0] * size, [1.0] * size, unsafe), outputs=unsafe.matrix.shape[1])
    path = save_onnx(folder / "network.onnx", network)
    confirmation = Confirmation(instance, path, folder / "counterexample.gz", Group())
    with Probe(CPU) as probe:
        return Verification(
            DriverStub(network),
            instance,
            Method.COMPLETE,
            0,
            CPU,
            Deadline(Group(), 20),
            confirmation,
            probe,
            Progress(),
        ).run()


def zero() -> SmallNetwork:
    """y = relu(x) - relu(x), which is 0 everywhere."""
    builder = Builder((1,))
    x = builder.pointwise(Op.RELU, builder.linear_of("x", torch.ones(2, 1), torch.zeros(2)))
    return builder.network(builder.linear_of(x, torch.tensor([[1.0, -1.0]]), torch.zeros(1)))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_constant_is_never_strictly_above_or_below_itself(sign: int, tmp_path: Path) -> None:
    found = verified(zero(), region([[sign]], [0], strict=True), tmp_path)
    assert (found.verdict, found.cause) == (Verdict.UNSAT, Cause.NONE)
    found = verified(zero(), region([[sign]], [0]), tmp_path)
    assert found.verdict is Verdict.SAT


def test_a_tie_that_fractions_cannot_decide_is_given_up_at_once(tmp_path: Path) -> None:
    """y = relu(2 x) - 2 relu(x) is 0, but no two neurons are alike: no search would ever end."""
    builder = Builder((1,))
    x = builder.linear_of("x", torch.tensor([[1.0], [2.0]]), torch.zeros(2))
    x = builder.pointwise(Op.RELU, x)
    network = builder.network(builder.linear_of(x, torch.tensor([[-2.0, 1.0]]), torch.zeros(1)))
    found = verified(network, region([[1]], [0], strict=True), tmp_path)
    assert (found.verdict, found.cause) == (Verdict.UNKNOWN, Cause.WITHIN_ROUNDING)
    assert "a margin of 0" in found.message
