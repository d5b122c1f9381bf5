"""The hand-written gradients are those of the functions, in float64 and away from kinks."""

from __future__ import annotations

import pytest
import torch
from small_networks import Builder, SmallNetwork, cnn
from torch import Tensor
from torch.autograd import gradcheck

from runner.engine.bounds.affine_passes import affine_backward, affine_forward
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.relu import ReluRelaxation
from runner.engine.bounds.rules import AffineRule
from runner.engine.network import blocks
from runner.engine.network.graph import Op


def away_from_zero(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x + 0.1 * x.sign()).requires_grad_()


def relaxation() -> ReluRelaxation:
    """Two domains of five neurons: unstable in both, in either, and stable."""
    lower = torch.tensor([[-1.0, -2.0, 0.5, -3.0, 1.0], [-2.0, 0.1, -0.5, -3.0, 1.0]])
    upper = torch.tensor([[2.0, 1.0, 1.5, -1.0, 2.0], [0.5, 1.0, 3.0, -1.0, 2.0]])
    return ReluRelaxation(Interval(lower.double(), upper.double()))


def test_relu_gradients_of_rows_and_of_slopes() -> None:
    chosen = relaxation()
    assert chosen.unstable.tolist() == [0, 1, 2]
    slopes = torch.full((3, 2, 3), 0.4, dtype=torch.float64).requires_grad_()
    assert gradcheck(chosen.backward, (away_from_zero(3, 2, 5), slopes))
    assert gradcheck(lambda rows: chosen.backward(rows, None), (away_from_zero(3, 2, 5, seed=1),))


def test_a_domain_where_a_neuron_is_stable_has_no_slope_to_choose() -> None:
    chosen = relaxation()
    rows = away_from_zero(3, 2, 5)
    slopes = torch.full((3, 2, 3), 0.4, dtype=torch.float64).requires_grad_()
    result, constant = chosen.backward(rows, slopes)
    (gradient,) = torch.autograd.grad(result.sum() + constant.sum(), slopes)
    positive = (rows[:, :, :3] > 0).double() * torch.tensor([[1.0, 1, 0], [1, 0, 1]])
    assert torch.equal(gradient, positive * rows[:, :, :3])
    active, inactive = rows[:, 0, 2], rows[:, :, 3]
    assert torch.equal(result[:, 0, 2], active)
    assert torch.equal(result[:, :, 3], torch.zeros_like(inactive))


def linear() -> SmallNetwork:
    builder = Builder((7,), seed=1)
    return builder.network(builder.linear("x", 4))


def strided() -> SmallNetwork:
    builder = Builder((2, 4, 5), seed=2)
    return builder.network(builder.conv("x", 2, stride=(2, 2), padding=(1, 0), dilation=(1, 2)))


def grouped() -> SmallNetwork:
    builder = Builder((4, 5, 4), seed=3)
    return builder.network(builder.conv("x", 2, stride=(2, 1), groups=2))


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("make", [linear, strided, grouped])
def test_affine_gradients_and_that_both_maps_are_adjoint(
    make: object, in_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_blocks:
        monkeypatch.setattr(blocks, "LEAST_BLOCK_BYTES", 1)
    network: SmallNetwork = make()  # type: ignore[operator]
    rule = network.bound().linear[network.graph.output]
    assert isinstance(rule, AffineRule)
    affine = rule.affine
    x = away_from_zero(2, *network.graph.input.shape)
    rows = away_from_zero(1, 2, *affine.node.shape, seed=1)
    assert gradcheck(lambda x: affine_forward(affine, x), (x,))
    assert gradcheck(lambda rows: affine_backward(affine, rows), (rows,))
    y = affine_forward(affine, x)
    columns, constant = affine_backward(affine, rows)
    torch.testing.assert_close(
        (rows * y).flatten(2).sum(2), (columns * x).flatten(2).sum(2) + constant
    )
    # What start rows and magnitudes are, in terms of the map itself.
    neurons = torch.arange(affine.node.size)
    matrix = affine.start_rows(neurons, torch.float64).flatten(1)
    torch.testing.assert_close(affine.apply(x).flatten(1), x.flatten(1) @ matrix.T)
    radius = x.detach().abs()
    expected = (radius.flatten(1) @ matrix.abs().T).reshape(2, *affine.node.shape)
    torch.testing.assert_close(affine.magnitude(radius), expected)


def test_the_forward_pass_has_the_gradient_of_the_plain_one() -> None:
    network = cnn()
    x = away_from_zero(3, *network.graph.input.shape).detach().float().requires_grad_()
    ours, plain = network.bound().forward(x), network.outputs(x)
    torch.testing.assert_close(ours, plain)
    weights = torch.randn(3, ours.shape[1], generator=torch.Generator().manual_seed(0))
    (expected,) = torch.autograd.grad((weights * plain).sum(), x)
    (gradient,) = torch.autograd.grad((weights * ours).sum(), x)
    torch.testing.assert_close(gradient, expected)


def test_no_weight_is_kept_for_the_gradient() -> None:
    """A block comes again when the gradient needs it, so a graph must hold none of them."""
    network = linear()
    kept: list[tuple[int, ...]] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    rule = network.bound().linear[network.graph.output]
    assert isinstance(rule, AffineRule)
    assert network.graph.node(network.graph.output).op is Op.LINEAR
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        rule.forward(torch.ones(2, 7, requires_grad=True))
        rule.backward(torch.ones(3, 2, 4, requires_grad=True))
    assert (4, 7) not in kept
    assert (7, 4) not in kept
