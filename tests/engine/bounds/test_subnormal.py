"""Products with weights that are no normal numbers are those of the weights, but faster."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_networks import Builder, SmallNetwork, box_of

from runner.contract.vocabulary import Method
from runner.engine.bounds import affine
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.rules import AffineRule
from runner.engine.bounds.subnormal import Normalised
from runner.engine.network.graph import Op

TINY = torch.finfo(torch.float32).tiny


def network(factor: float, *, sparse: bool) -> SmallNetwork:
    """All weights, or every second one, are multiplied with the factor."""
    builder = Builder((2, 6, 6), seed=2)
    x = builder.pointwise(Op.RELU, builder.conv("x", 5, padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.conv(x, 4, padding=(1, 1)))
    made = builder.network(builder.linear(builder.flatten(x), 3))
    for weight in made.tensors.values():
        if weight.dim() > 1:
            weight.flatten()[:: 2 if sparse else 1] *= factor
    return made


@pytest.mark.parametrize("sparse", [True, False])
def test_convolutions_are_those_of_the_weights(sparse: bool) -> None:
    small = network(1e-40, sparse=sparse)
    first = next(node for node in small.graph.nodes if node.op is Op.CONV)
    weight = small.tensors[first.parameters["weight"]]
    assert ((weight != 0) & (weight.abs() < TINY)).any()
    rule = small.bound().linear[first.name]
    assert isinstance(rule, AffineRule)
    draws = torch.Generator().manual_seed(0)
    x, rows = torch.randn(3, 2, 6, 6, generator=draws), torch.randn(3, 5, 6, 6, generator=draws)
    for apply, given, true in (
        (rule.affine.apply, x, F.conv2d(x.double(), weight.double(), padding=1)),
        (rule.affine.magnitude, x, F.conv2d(x.double(), weight.abs().double(), padding=1)),
        (
            rule.affine.transpose,
            rows,
            F.conv_transpose2d(rows.double(), weight.double(), padding=1),
        ),
    ):
        assert float(true.abs().max()) > (1e-2 if sparse else 1e-41)
        size = float(true.abs().max())
        assert float((apply(given) - true).abs().max()) <= 1e-6 * size + 2.0**-148


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sparse", [True, False])
def test_linear_products_are_those_of_the_weights(sparse: bool, dtype: torch.dtype) -> None:
    small = network(1e-40, sparse=sparse)
    last = small.graph.nodes[-1]
    true = small.tensors[last.parameters["weight"]].double()
    rule = small.bound().linear[last.name]
    assert isinstance(rule, AffineRule)
    affine_map = rule.affine
    assert isinstance(affine_map, affine.LinearMap)
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(4, true.shape[1], generator=draws, dtype=dtype)
    rows = torch.randn(4, 3, generator=draws, dtype=dtype)
    some = torch.tensor([2, 0])
    for given, exact in (
        (affine_map.apply(x), x.double() @ true.T),
        (affine_map.magnitude(x.abs()), x.abs().double() @ true.abs().T),
        (affine_map.transpose(rows), rows.double() @ true),
        (affine_map.apply_at(x, some), x.double() @ true[some].T),
        (affine_map.transpose_at(rows[:, some], some), rows[:, some].double() @ true[some]),
    ):
        size = float(exact.abs().max())
        assert given.dtype is dtype
        assert size > (1e-2 if sparse else 1e-41)
        assert float((given - exact).abs().max()) <= 1e-6 * size + 2.0**-148


def seen(weight: torch.Tensor) -> list[float]:
    """What a product is given for a weight, and what it becomes."""
    given: list[float] = []

    def function(block: torch.Tensor) -> torch.Tensor:
        given.append(float(block.flatten()[0]))
        return block.clone()

    result = Normalised().product(0, weight, function)
    assert torch.equal(result, weight)
    return given


def test_products_see_normal_numbers_alone() -> None:
    least = float(torch.finfo(torch.float32).smallest_normal) * 2.0**-23
    assert seen(torch.tensor([least, 1.0])) == [TINY]
    assert seen(torch.tensor([TINY, 1.0])) == [TINY]
    assert seen(torch.tensor([0.0, 1.0])) == [0.0]


def test_one_at_the_end_of_a_large_weight_is_seen() -> None:
    weight = torch.ones(300, 1000)
    weight[-1, -1] = 1e-40
    assert seen(weight) == [2.0**23]


def test_where_others_are_large_they_stay_as_they_are() -> None:
    assert seen(torch.tensor([1e-40, 1e7])) == [pytest.approx(1e-40, rel=1e-3)]


def test_layers_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int] = set()

    class Watched(Normalised):
        def product(self, start, block, function):  # type: ignore[no-untyped-def]
            asked.add(block.dim())
            return super().product(start, block, function)

    monkeypatch.setattr(affine, "Normalised", Watched)
    small = network(1e-40, sparse=True)
    Propagator(small.bound(), Settings(Method.CROWN)).bound(box_of(small, 0.3))
    assert asked == {2, 4}
