"""Whether bounds of a network hold at all points that sampling and attacks find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import SmallNetwork, points_in, specs_of
from torch import Tensor

from runner.contract.vocabulary import BOUNDS, Method
from runner.engine.bounds import crop, precision, propagate
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.backward import Frontier, start_frontier
from runner.engine.bounds.forward import ForwardPass
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator

# Roundings of the largest value that the tested values themselves, in float64, may be off by.
ROUNDINGS = 100


def at_least(values: NDArray[np.floating], room: NDArray[np.floating], limits: Any) -> bool:
    """Whether values are no lower than limits, but for `room` where they have not overflowed. No
    differences are taken: a limit that is no number is one that does not hold.
    """
    return bool((values + np.where(np.isfinite(values), room, 0.0) >= limits).all())


def bounded(
    network: SmallNetwork, box: Interval, specs: Tensor, method: Method
) -> tuple[NetworkBounds, Tensor]:
    chosen = Settings(method, row_block=64, alpha=AlphaSettings(iterations=3))
    propagator = Propagator(network.bound(), chosen)
    bounds = propagator.bound(box)
    return bounds, propagator.spec_bounds(bounds, specs)


def by_forms(
    network: SmallNetwork, box: Interval, columns: int, *, patches: bool = False
) -> dict[str, Interval]:
    """Bounds of every node from its form alone, over interval bounds and forms before; `patches`:
    with as many as there is room for.
    """
    bound = network.bound()
    forward = ForwardPass(bound, box, torch.inf)
    found, known = {}, {bound.graph.input.name: box}
    for node in bound.graph.nodes[1:]:
        before = [known[name] for name in node.inputs]
        known[node.name] = interval = bound.rule(node.name).interval(*before)
        if patches:
            forward.columns(node.name, 1, box.lower.dtype)
        found[node.name] = forward.interval(node.name, known, columns)
        known[node.name] = interval.intersect(found[node.name])
    return found


def counted_rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, int]]:
    """Grows by each block of neurons that rows are begun for: in which precision, and how many."""
    found: list[tuple[torch.dtype, int]] = []

    def counted(
        network: BoundNetwork, name: str, neurons: Tensor, batch: int, dtype: torch.dtype
    ) -> Frontier:
        found.append((dtype, len(neurons)))
        return start_frontier(network, name, neurons, batch, dtype)

    for module in (crop, precision, propagate):
        monkeypatch.setattr(module, "start_frontier", counted)
    return found


def attacked(network: SmallNetwork, box: Interval, specs: Tensor) -> Tensor:
    """Points [G, B, *input] in float64, each where PGD makes a spec or plus or minus a neuron
    small; neurons are drawn from all nodes.
    """
    generator = torch.Generator().manual_seed(1)
    goals = [(network.graph.output, spec.double()) for spec in specs]
    for node in network.graph.nodes[1:]:
        for sign in (-1.0, 1.0):
            goal = torch.zeros(node.size, dtype=torch.float64)
            goal[torch.randint(node.size, (), generator=generator)] = sign
            goals.append((node.name, goal))
    lower, upper = box.lower.double(), box.upper.double()
    x = points_in(box.to(torch.float64), len(goals), seed=1)
    for step in range(6):
        x = x.detach().requires_grad_()
        values = network.values(x.flatten(0, 1))
        loss = torch.zeros(())
        for index, (name, goal) in enumerate(goals):
            value = values[name].reshape(*x.shape[:2], -1)[index]
            loss = loss + (value @ goal).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        moved = x.detach() - (upper - lower) * 0.5**step * gradient.sign()
        x = torch.minimum(torch.maximum(moved, lower), upper)
    return x.detach()


def assert_sound(network: SmallNetwork, box: Interval, dtype: torch.dtype) -> None:
    specs = specs_of(network, 3)
    x = torch.cat((points_in(box.to(torch.float64), 30), attacked(network, box, specs)))
    values = {
        name: value.reshape(*x.shape[:2], *value.shape[1:])
        for name, value in network.values(x.flatten(0, 1)).items()
    }
    outputs = values[network.graph.output].flatten(2)
    for columns, patches in ((1000, False), (2, True), (2, False), (0, False)):
        for name, interval in by_forms(network, box.to(dtype), columns, patches=patches).items():
            ends = [interval.lower, interval.upper]
            assert {end.dtype for end in ends} == {dtype}
            size = max((float(end[end.isfinite()].abs().sum()) for end in ends), default=0.0)
            room = ROUNDINGS * torch.finfo(torch.float64).eps * (1 + size)
            assert (values[name] >= interval.lower - room).all(), f"{columns} columns: {name}"
            assert (values[name] <= interval.upper + room).all(), f"{columns} columns: {name}"
    for method in BOUNDS:
        bounds, found = bounded(network, box.to(dtype), specs.to(dtype), method)
        ends = [end for i in bounds.intervals.values() for end in (i.lower, i.upper)]
        assert {end.dtype for end in (*ends, found)} == {dtype}
        assert found.shape == (len(specs), len(box.lower))
        known = [end[end.isfinite()].abs() for end in ends]
        largest = 1 + max((float(end.max()) for end in known if end.numel()), default=0.0)
        tolerance = ROUNDINGS * torch.finfo(torch.float64).eps * largest
        for name, interval in bounds.intervals.items():
            assert (values[name] >= interval.lower - tolerance).all(), f"{method}: {name}"
            assert (values[name] <= interval.upper + tolerance).all(), f"{method}: {name}"
        margins = torch.einsum("so,pbo->psb", specs.double(), outputs) - found
        # What has overflowed says nothing, but it does so as -inf.
        assert not found.isnan().any(), f"{method}: specs"
        assert not (margins < -tolerance * specs.abs().sum(1).max()).any(), f"{method}: specs"
