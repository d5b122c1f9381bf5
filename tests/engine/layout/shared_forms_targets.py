"""What ranks compute in the tests of forms: baseline's and a strategy's, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from device import TORCH_DEVICE
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds import ends
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.box_alpha import Mixes
from runner.engine.bounds.boxes import BoxBounds
from runner.engine.bounds.ends import Ends
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.patches import Patches, convolution
from runner.engine.bounds.reach import reach
from runner.engine.bounds.rounding import plain_products
from runner.engine.bounds.tagging import NoTagger
from runner.engine.clock import Deadline
from runner.engine.driver_engine import DriverEngine
from runner.engine.layout.group import Group, joined_group
from runner.engine.network.graph import Node, Op
from runner.verifiers.strategies import strategy_named

Payload = dict[str, Any]


def _engine(payload: Payload, name: str, group: Group) -> DriverEngine:
    prepared = Path(payload["prepared"])
    return DriverEngine(prepared, strategy_named(name), group, TORCH_DEVICE, NoTagger())


@contextmanager
def _both(payload: Payload) -> Iterator[tuple[DriverEngine, DriverEngine]]:
    """Baseline's and the strategy's."""
    plain_products()
    with joined_group(TORCH_DEVICE) as group:
        yield _engine(payload, "baseline", Group()), _engine(payload, payload["strategy"], group)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rows_that_end_early(payload: Payload) -> Payload:
    """Of boxes, with rows that end at a node, those of nodes behind it: where they did, how far
    bounds are from baseline's, and how far outputs lie below what rows say.
    """
    with (
        _both(payload) as (one, many),
        patch.object(ends, "LEAST_WORK", 0),
        patch.object(Ends, "best", _at(one, payload["end"])),
    ):
        shape, boxes = one.input_shape, 2
        centre = torch.randn(boxes, *shape, generator=_generator()).to(TORCH_DEVICE)
        box = Interval(centre - payload["radius"], centre + payload["radius"])
        outputs = one.graph.node(one.graph.output).size
        rows = torch.randn(8, outputs, generator=_generator(), dtype=torch.float64).to(box.lower)
        of = torch.arange(boxes, device=TORCH_DEVICE).repeat(4)
        expected, (lower, slopes) = _bounded(one, box, rows.double(), of)
        found, (mine, moved) = _bounded(many, box, rows.double(), of)
        x = centre + payload["radius"] * (
            2 * torch.rand(64, boxes, *shape, generator=_generator()) - 1
        )
        reached = (one.exact(x.flatten(0, 1)).unflatten(0, (64, boxes))[:, of] * rows.double()).sum(
            2
        )
    gaps = [_gaps(found.intervals[name], of_one) for name, of_one in expected.intervals.items()]
    return {
        "ends": [bounds.end.name if bounds.end else None for bounds in (expected, found)],
        "tighter": max(gap for gap, _ in gaps),
        "looser": max(gap for _, gap in gaps),
        "rows": float(((mine - lower).abs() / lower.abs().clamp(min=1)).max()),
        "slopes": float((moved - slopes).abs().max()) * payload["radius"],
        "below": float((mine - reached).clamp(min=0).max()),
    }


def _at(engine: DriverEngine, end: str) -> Callable[..., Node | None]:
    place = [node.name for node in engine.graph.nodes]

    def best(self: Ends, name: str, *of_rows: object) -> Node | None:
        return engine.graph.node(end) if place.index(name) > place.index(end) else None

    return best


def _bounded(
    engine: DriverEngine, box: Interval, rows: Tensor, of: Tensor
) -> tuple[BoxBounds, tuple[Tensor, Tensor]]:
    propagator = engine.boxes(lambda: None)
    bounds = propagator.bound(box, {})
    found = propagator.rows(bounds, rows, of)
    return bounds, (found.lower, found.coefficients)


def _gaps(one: Interval, other: Interval) -> tuple[float, float]:
    """How much tighter and looser it is than the other at most, as shares of the greater of a
    neuron's two bounds, at least 1.
    """
    scale = torch.maximum(other.lower.abs(), other.upper.abs()).clamp(min=1)
    inwards = torch.stack((one.lower - other.lower, other.upper - one.upper)) / scale
    return float(inwards.max()), float(-inwards.min())


def mixed_rows(payload: Payload) -> Payload:
    """Of boxes, so many rows mixed, with slopes and weights that are searched for: how far a
    strategy's bounds are from baseline's, and how much more they say than the first slopes.
    """
    with _both(payload) as (one, many):
        outputs, count = one.graph.node(one.graph.output).size, payload["rows"]
        centre = torch.randn(5, *one.input_shape, generator=_generator()).to(TORCH_DEVICE)
        box = Interval(centre - payload["radius"], centre + payload["radius"])
        rows = torch.randn(5, count, outputs, generator=_generator(), dtype=torch.float64)
        weights = torch.full((5, count), 1 / count, dtype=torch.float64)
        thresholds, real = torch.zeros_like(weights), torch.ones_like(weights, dtype=torch.bool)
        parts = (torch.arange(5), rows, thresholds, weights, real)
        mixes = Mixes(*(part.to(TORCH_DEVICE) for part in parts))
        expected, found = (_of_mixes(engine, box, mixes, 6) for engine in (one, many))
        first = _of_mixes(one, box, mixes, 1)
    return {"apart": float((found - expected).abs().max()), "gain": float((expected - first).max())}


def _of_mixes(engine: DriverEngine, box: Interval, mixes: Mixes, iterations: int) -> Tensor:
    propagator = engine.boxes(lambda: None)
    settings = AlphaSettings(iterations=iterations, step=0.4)
    found, _ = propagator.mixed_rows(propagator.bound(box, {}), mixes, settings)
    return found.lower


def reached_neurons(payload: Payload) -> Payload:
    """Start nodes of which other neurons are taken for reached than by baseline."""
    with _both(payload) as (one, many):
        rows = torch.zeros(2, one.graph.node(one.graph.output).size, device=TORCH_DEVICE)
        rows[0, 0], rows[1, -1] = 1.0, -1.0
        expected, found = reach(_network(one), rows), reach(_network(many), rows)
    differ = [name for name in expected if not torch.equal(found[name], expected[name])]
    return {"differ": differ, "left_out": sum(int((~mask).sum()) for mask in expected.values())}


def patches_dealt_out(payload: Payload) -> Payload:
    """So many patches at every convolution, before and behind it: how far from baseline's."""
    apart: dict[str, float] = {}
    with _both(payload) as (one, many):
        for node in one.graph.nodes:
            if node.op is Op.CONV:
                for count in payload["counts"]:
                    sides = [_patches(_network(engine), node.name, count) for engine in (one, many)]
                    for what in sides[0]:
                        gap = (sides[0][what] - sides[1][what]).abs().max()
                        apart[f"{node.name} {count} {what}"] = float(gap)
    return {"apart": apart, "own": many.weight_bytes, "all": one.weight_bytes}


def _patches(network: BoundNetwork, name: str, count: int) -> dict[str, Tensor]:
    conv = convolution(network.linear[name])
    if conv is None:
        raise ValueError(f"{name} is no convolution")
    draws = _generator()
    size = torch.Size(conv.input_shape).numel()
    neurons = torch.randperm(size, generator=draws)[:count].to(TORCH_DEVICE)
    sizes = torch.rand(len(neurons), generator=draws).to(TORCH_DEVICE)
    patches = Patches.of_neurons(neurons, sizes, conv.input_shape, network.features)
    behind = patches.through(conv.fetched())
    some = behind.select(torch.arange(len(behind), device=TORCH_DEVICE) % 3 == 0)
    return {
        "whole": patches.whole(),
        "behind": behind.whole(),
        "reach": behind.reach(),
        "mass": behind.mass,
        "some": some.whole(),
        "count": torch.tensor(float(len(some))),
    }


def _network(engine: DriverEngine) -> BoundNetwork:
    deadline = Deadline(Group(), 100.0)
    return engine.propagator(Method.CROWN, deadline, lambda rows: rows).network
