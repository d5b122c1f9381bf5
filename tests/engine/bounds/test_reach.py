"""Neurons that rows of the output do not depend on need no bounds, and theirs change nothing."""

from __future__ import annotations

import torch
from small_networks import Builder, SmallNetwork, attention, box_of, mlp

from runner.contract.vocabulary import Method
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.reach import reach
from runner.engine.bounds.refinement import Refinement
from runner.engine.network.graph import Op


def image_network() -> SmallNetwork:
    builder = Builder((2, 12, 12), seed=5)
    x = builder.pointwise(Op.RELU, builder.conv("x", 3, padding=(1, 1)))
    x = builder.pool(Op.MAXPOOL, builder.conv(x, 3, padding=(1, 1)), (2, 2), (2, 2), (0, 0))
    x = builder.pointwise(Op.ADD, builder.conv(x, 3, padding=(1, 1)), x)
    x = builder.conv(builder.pointwise(Op.RELU, x), 2, (1, 1))
    return builder.network(builder.flatten(x))


def one_place(network: SmallNetwork) -> torch.Tensor:
    rows = torch.zeros(2, network.bound().outputs)
    rows[0, 7], rows[1, 7 + 36] = 1.0, -1.0
    return rows


def test_it_holds_every_neuron_that_a_gradient_comes_to() -> None:
    network, rows = image_network(), one_place(image_network())
    found = reach(network.bound(), rows)
    for seed in range(20):
        x = torch.randn(1, 2, 12, 12, generator=torch.Generator().manual_seed(seed))
        values = network.values(x.requires_grad_())
        names = list(found)
        wanted = (values[network.graph.output].flatten(1) @ rows.T).sum()
        gradients = torch.autograd.grad(wanted, [values[name] for name in names])
        for name, gradient in zip(names, gradients, strict=True):
            assert not (gradient.flatten() != 0)[~found[name]].any(), name


def test_it_passes_attention() -> None:
    """Where every value takes every other: nothing is left out, and no row loses its bound."""
    network = attention()
    rows = torch.eye(network.bound().outputs)[:1]
    found = reach(network.bound(), rows)
    x = torch.randn(1, *network.graph.input.shape, generator=torch.Generator().manual_seed(0))
    values = network.values(x.requires_grad_())
    wanted = (values[network.graph.output].flatten(1) @ rows.T).sum()
    gradients = torch.autograd.grad(wanted, [values[name] for name in found])
    for (name, mask), gradient in zip(found.items(), gradients, strict=True):
        assert not (gradient.flatten() != 0)[~mask].any(), name


def test_one_place_of_an_image_sees_a_part_of_it() -> None:
    network = image_network()
    found = reach(network.bound(), one_place(network))
    shares = [float(mask.float().mean()) for mask in found.values()]
    assert all(0 < share < 0.5 for share in shares)


def test_dense_layers_are_seen_whole() -> None:
    network = mlp(4, 8, 8, 3)
    assert all(mask.all() for mask in reach(network.bound(), torch.eye(3)).values())


def test_bounds_of_rows_need_nothing_else() -> None:
    network, rows = image_network(), one_place(image_network())
    bound, box = network.bound(), box_of(network, 0.1)
    found = []
    for wanted in ({}, reach(bound, rows)):
        propagator = Propagator(bound, Settings(Method.CROWN), refinement=Refinement(wanted))
        bounds = propagator.bound(box)
        found.append(propagator.spec_bounds(bounds, rows))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
