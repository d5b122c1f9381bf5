"""Products of rows that are zero at inactive neurons: short where rows come from a ReLU alone, and
the same as the whole ones.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_networks import Builder, SmallNetwork, box_of, points_in, specs_of
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds import relu
from runner.engine.bounds.affine import LinearMap
from runner.engine.bounds.affine_passes import affine_backward, narrow_backward
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.rules import AffineRule
from runner.engine.network.graph import Op

INACTIVE, WIDTH = 20, 26


def idle_layer(builder: Builder, x: str) -> str:
    """Linear, with values below 0 at most of its outputs."""
    (inputs,) = builder.shape(x)
    weight = builder.random(WIDTH, inputs) / inputs
    bias = torch.cat((torch.full((INACTIVE,), -20.0), torch.zeros(WIDTH - INACTIVE)))
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
    return builder.linear_of(x, weight[order], bias[order])


def idle() -> SmallNetwork:
    builder = Builder((4,), seed=2)
    x = builder.pointwise(Op.RELU, idle_layer(builder, "x"))
    x = builder.pointwise(Op.RELU, idle_layer(builder, x))
    builder.linear(x, 3)
    return builder.network()


def met_before() -> SmallNetwork:
    """A layer that is added to what follows its ReLU: rows come from the addition first."""
    builder = Builder((4,), seed=3)
    x = idle_layer(builder, "x")
    bent = builder.linear(builder.pointwise(Op.RELU, x), WIDTH)
    builder.linear(builder.pointwise(Op.ADD, bent, x), 3)
    return builder.network()


def met_after() -> SmallNetwork:
    """A layer whose other user stands before its ReLU: rows come from the ReLU first."""
    builder = Builder((4,), seed=4)
    x = idle_layer(builder, "x")
    straight = builder.linear(x, WIDTH)
    bent = builder.pointwise(Op.RELU, x)
    builder.linear(builder.pointwise(Op.ADD, straight, bent), 3)
    return builder.network()


def bounded(network: SmallNetwork, method: Method) -> tuple[NetworkBounds, Tensor]:
    """Of all nodes, and of specs."""
    propagator = Propagator(network.bound(), Settings(method))
    bounds = propagator.bound(box_of(network, 0.5).to(torch.float64))
    return bounds, propagator.spec_bounds(bounds, specs_of(network, 3).double())


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by how many outputs each short product is of."""
    found: list[int] = []
    plain = AffineRule.backward_at

    def watched(
        self: AffineRule, rows: Tensor, outputs: Tensor
    ) -> tuple[list[Tensor], Tensor | None]:
        found.append(len(outputs))
        return plain(self, rows, outputs)

    monkeypatch.setattr(AffineRule, "backward_at", watched)
    return found


def whole_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relu, "ALIVE_SHARE", -1.0)


def test_a_short_product_is_the_whole_one_and_so_is_its_gradient() -> None:
    network = idle()
    bound = network.bound()
    (rule, *_) = (r for r in bound.linear.values() if isinstance(r, AffineRule))
    affine = rule.affine
    assert isinstance(affine, LinearMap)
    outputs = torch.tensor([1, 4, 5, 17])
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64).requires_grad_()

    def product(short: bool) -> tuple[Tensor, Tensor]:
        rows = some.new_zeros(3, 2, WIDTH).index_copy(2, outputs, some)
        return narrow_backward(affine, rows, outputs) if short else affine_backward(affine, rows)

    short, whole = product(short=True), product(short=False)
    weights = [torch.randn(part.shape, generator=generator).double() for part in whole]
    gradients: list[Tensor] = []
    for parts in (short, whole):
        value = sum((part * w).sum() for part, w in zip(parts, weights, strict=True))
        gradients += torch.autograd.grad(value, some)  # type: ignore[arg-type]
    for one, other in (*zip(short, whole, strict=True), gradients):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", [Method.CROWN, Method.ALPHA_CROWN])
def test_bounds_by_short_products_are_those_by_whole_ones(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, lengths = idle(), counted(monkeypatch)
    bounds, found = bounded(network, method)
    assert lengths
    assert max(lengths) <= WIDTH - INACTIVE
    x = points_in(bounds.box, 300)[:, 0]
    for name, value in network.values(x).items():
        assert (value >= bounds.intervals[name].lower - 1e-9).all(), name
        assert (value <= bounds.intervals[name].upper + 1e-9).all(), name
    lengths.clear()
    whole_alone(monkeypatch)
    before, expected = bounded(network, method)
    assert not lengths
    torch.testing.assert_close(found, expected)
    for name, interval in before.intervals.items():
        torch.testing.assert_close(bounds.intervals[name].lower, interval.lower)
        torch.testing.assert_close(bounds.intervals[name].upper, interval.upper)


@pytest.mark.parametrize("make", [met_before, met_after])
def test_where_rows_come_from_elsewhere_too_products_are_whole(
    make: Callable[[], SmallNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make()
    lengths = counted(monkeypatch)
    bounds, found = bounded(network, Method.ALPHA_CROWN)
    (name,) = {n.inputs[0] for n in network.graph.nodes if n.op is Op.RELU}
    assert int((bounds.intervals[name].upper < 0).sum()) >= INACTIVE
    assert lengths == []
    outputs = network.outputs(points_in(bounds.box, 300)[:, 0])
    values = outputs @ specs_of(network, 3).double().T
    assert (values >= found[:, 0] - 1e-9).all()
