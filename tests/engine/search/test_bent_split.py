"""Neuron splits of networks that bend otherwise than by ReLUs: no proof contradicts a sample, and
what α-CROWN leaves open is proved, also without a single ReLU.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from questions import bounded, case, question, region
from small_networks import Builder, SmallNetwork
from test_relu_split import WEAK, search
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds.beta import BetaSettings
from runner.engine.clock import DeadlineReached
from runner.engine.network.graph import Op
from runner.engine.search.search import SearchEnd
from runner.problem.property.model import Property

KINDS = ["sigmoid", "sin", "products", "mixed"]
ATTEMPTS = {
    "limits of the root": replace(WEAK, most_rows=0),
    "limits anew": replace(WEAK, trial=0),
}


def bent(kind: str, seed: int, width: int = 5) -> SmallNetwork:
    builder = Builder((3,), seed)
    x = "x" if kind == "attention" else builder.linear("x", 2 * width)
    match kind:
        case "sigmoid":
            x = builder.pointwise(Op.SIGMOID, x)
            x = builder.pointwise(Op.TANH, builder.linear(x, width))
        case "sin":
            x = builder.pointwise(Op.SIN, x)
            x = builder.pointwise(Op.COS, builder.linear(x, width))
        case "products":
            x = product(builder, x, width)
            x = builder.pointwise(Op.SQUARE, builder.linear(x, width))
        case "attention":
            scores = builder.reshape(builder.linear("x", 4), 1, 2, 2)
            sums = builder.exp_sums(scores, 2)
            shares = builder.reshape(builder.pointwise(Op.RECIPROCAL, sums), 1, 2, 2)
            values = builder.reshape(builder.linear("x", 4), 1, 2, 2)
            x = builder.flatten(builder.matmul(shares, values))
            x = builder.pointwise(Op.RELU, builder.linear(x, width))
        case _:
            x = builder.pointwise(Op.RELU, x)
            x = product(builder, builder.linear(x, 2 * width), width)
            x = builder.pointwise(Op.SIGMOID, x)
    builder.linear(x, 2)
    return builder.network()


def product(builder: Builder, x: str, width: int) -> str:
    return builder.add(Op.PRODUCT, (builder.reshape(x, 2, width),), (width,))


def dense(network: SmallNetwork, radius: float) -> Tensor:
    """Outputs [P, 2] at points of the box, corners and a local search's among them."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand((20_000, 3), generator=generator).double() * 2 - 1) * radius
    x[:8] = torch.cartesian_prod(*[torch.tensor([-radius, radius]).double()] * 3)
    y = network.outputs(x)
    for step in (0.1, 0.01, 0.001):
        best = x[y[:, 0].topk(200, largest=False).indices]
        near = best.repeat(20, 1)
        near = near + step * radius * torch.randn(near.shape, generator=generator).double()
        near = near.clamp(-radius, radius)
        x, y = torch.cat([x, near]), torch.cat([y, network.outputs(near)])
    return y


def asked(network: SmallNetwork, radius: float, room: float) -> Property:
    """Whether the first output comes `room` below its least sample, as a share of its range."""
    y = dense(network, radius)[:, 0]
    limit = float(y.min()) - room * float(y.max() - y.min())
    return question(case([-radius] * 3, [radius] * 3, region([[1, 0]], [limit])), outputs=2)


class Stops:
    """A deadline after so many passes."""

    def __init__(self, passes: int) -> None:
        self._left = passes

    def __call__(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise DeadlineReached


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("kind", [*KINDS, "attention"])
def test_no_proof_contradicts_a_sample(kind: str, attempt: str) -> None:
    """The limit lies just above the least sample: there is a counterexample, hardly."""
    network = bent(kind, 0, width=3)
    instance = asked(network, 0.5, -1e-4)
    incomplete = bounded(network, instance, Method.CROWN)
    try:
        outcome, incomplete, _ = search(network, instance, ATTEMPTS[attempt], Stops(120))
    except DeadlineReached:
        outcome = SearchEnd.PAUSED
    assert outcome is not SearchEnd.PROVED
    assert incomplete.lower_bound <= 0


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_proves_what_alpha_crown_cannot(kind: str, attempt: str) -> None:
    network, instance = open_question(kind)
    settings = replace(ATTEMPTS[attempt], batch=32, child=BetaSettings(iterations=10))
    outcome, incomplete, progress = search(network, instance, settings, method=Method.CROWN)
    assert outcome is SearchEnd.PROVED
    assert incomplete.lower_bound > 0
    assert progress.domains > 2


def open_question(kind: str) -> tuple[SmallNetwork, Property]:
    """The first one that α-CROWN leaves open."""
    for seed in range(20):
        network = bent(kind, seed, width=3 if kind == "products" else 5)
        instance = asked(network, 0.5, 0.4 if kind in ("products", "mixed") else 0.1)
        if bool(bounded(network, instance, Method.ALPHA_CROWN).cases[0].open.any()):
            return network, instance
    raise ValueError(f"α-CROWN proves all {kind}")


def test_a_network_without_relu_has_a_search() -> None:
    network, instance = open_question("sigmoid")
    assert all(node.op is not Op.RELU for node in network.graph.nodes)
    settings = replace(ATTEMPTS["limits of the root"], child=BetaSettings(iterations=10))
    outcome, _, progress = search(network, instance, settings)
    assert outcome is SearchEnd.PROVED
    assert progress.depth > 1
