"""Bounds of training hold for what networks give, and are never tighter than the verifier's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import SmallNetwork
from sound_bounds import bounded
from torch import nn

from runner.contract.vocabulary import Method
from runner.engine.bounds.interval import Interval
from runner.engine.network.load import load_graph
from runner.training.architectures import KINDS, Architecture
from runner.training.categories.category import write_network
from runner.training.differentiable import Bound, Inputs, ball, interval, margins, relu_boxes
from runner.training.neurons import pre_activations

SIDE, RADIUS, CLASSES = 8, 0.05, 10
each_kind = pytest.mark.parametrize("kind", KINDS)


def network_of(kind: str) -> tuple[nn.Sequential, torch.Tensor]:
    """With an image of its shape."""
    architecture = Architecture(kind, width=8)
    generator = torch.Generator().manual_seed(5)
    shape = architecture.shape(SIDE)
    return architecture.network(SIDE, seed=2), torch.rand(1, *shape, generator=generator)


@each_kind
def test_values_at_points_of_the_ball_lie_within_the_bounds(kind: str) -> None:
    network, image = network_of(kind)
    box = ball(image, 0.1)
    inputs: Inputs = {}
    bounds = interval(network, box, inputs)
    boxes = relu_boxes(network, image, 0.1)
    label = torch.tensor([3])
    lower = {bound: margins(network, image, label, 0.1, bound)[0] for bound in Bound}
    shares = torch.rand(200, *image.shape[1:], generator=torch.Generator().manual_seed(0))
    shares[:100] = shares[:100].round()
    points = box.lower + shares * (box.upper - box.lower)
    with torch.no_grad():
        values, outputs = pre_activations(network, points)
    assert torch.equal(outputs, network(points)), "the walk is the network"
    for seen, within in zip([*values, outputs], [*boxes, bounds], strict=True):
        assert (seen >= within.lower - 1e-5).all()
        assert (seen <= within.upper + 1e-5).all()
    for found in lower.values():
        assert (outputs[:, [3]] - outputs >= found - 1e-5).all()
        assert found[3] == 0
    assert lower[Bound.CROWN_IBP].sum() > lower[Bound.IBP].sum(), "linear bounds tell more here"


@each_kind
def test_on_a_point_both_bounds_are_the_margins_themselves(kind: str) -> None:
    network, image = network_of(kind)
    with torch.no_grad():
        outputs = network(image)
    for bound in Bound:
        lower = margins(network, image, torch.tensor([1]), 0.0, bound)
        assert torch.allclose(lower, outputs[:, [1]] - outputs, atol=1e-5)


@each_kind
def test_the_verifiers_bounds_are_the_same_by_intervals_and_tighter_by_crown(
    kind: str, tmp_path: Path
) -> None:
    network, image = network_of(kind)
    file = tmp_path / "net.onnx"
    write_network(file, network, tuple(image.shape), CLASSES)
    loaded = load_graph(file)
    same = SmallNetwork(loaded.graph, loaded.tensors)
    box, one = ball(image, RADIUS), torch.eye(CLASSES)
    shape = (1, *same.graph.input.shape)
    theirs = Interval(box.lower.reshape(shape), box.upper.reshape(shape))
    intervals, _ = bounded(same, theirs, one, Method.IBP)
    with torch.no_grad():
        ours = interval(network, box, {})
        lower = margins(network, image, torch.tensor([1]), RADIUS, Bound.CROWN_IBP)[0]
    found = intervals.intervals[same.graph.output]
    # The verifier takes off what rounding may have cost.
    assert (found.lower <= ours.lower + 1e-5).all()
    assert (found.upper >= ours.upper - 1e-5).all()
    assert torch.allclose(found.lower, ours.lower, rtol=1e-2, atol=1e-2)
    _, specs = bounded(same, theirs, one[[1]] - one, Method.CROWN)
    assert specs.shape == (CLASSES, 1)
    assert specs.sum() >= lower.sum(), "row by row either may win: their lower lines differ"
