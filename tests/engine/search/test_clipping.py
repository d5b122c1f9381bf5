"""Clipped sub-domains: every unsafe point of one lies in its half space, and keeps its neurons
within the new limits.
"""

from __future__ import annotations

import pytest
import torch
from examples import seeds
from questions import bounded, case, question, region
from small_networks import SmallNetwork, mlp
from test_input_split import context
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds.beta import BetaSettings
from runner.engine.search.branching import inspected, most_promising
from runner.engine.search.clipping import Clipping
from runner.engine.search.domains import Domains, joined
from runner.engine.search.split_root import SplitRoot
from runner.problem.property.model import Property

RADIUS, INPUTS, LEVELS = 0.1, 30, 4


def asked(seed: int, depth: float) -> tuple[SmallNetwork, Property, Tensor]:
    """Unsafe is so much of what lies between the least value and the centre's; unsafe points."""
    network = mlp(INPUTS, 16, 12, 2, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(1000, INPUTS, generator=generator) * 2 - 1) * RADIUS
    for _ in range(60):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(network.outputs(x)[:, 0].sum(), x)
        x = (x - RADIUS / 20 * slope.sign()).clamp(-RADIUS, RADIUS)
    x = x.detach()
    # Towards the centre, some inputs more than others: to where it is safe.
    back = torch.rand(20, len(x), 1, generator=generator) * depth
    back = back * (torch.rand(20, len(x), INPUTS, generator=generator) < 0.5)
    points = (x * (1 - 2 * back)).clamp(-RADIUS, RADIUS).reshape(-1, INPUTS)
    values = network.outputs(points)[:, 0]
    middle = float(network.outputs(torch.zeros(1, INPUTS))[0, 0])
    threshold = float(values.min()) + depth * (middle - float(values.min()))
    box = case([-RADIUS] * INPUTS, [RADIUS] * INPUTS, region([[1, 0]], [threshold]))
    return network, question(box, outputs=2), points[values <= threshold]


def split(root: SplitRoot) -> list[Domains]:
    """The whole box, and level by level what comes of splitting all."""
    levels = [root.domains(torch.tensor([0]), BetaSettings(iterations=20))[0]]
    for _ in range(LEVELS):
        domains = levels[-1]
        rows = root.rows.of_domains(domains.disjunct, root.dtype)
        seen = root.bounds.inspect(domains.subdomains(rows))
        thresholds = root.rows.goal(domains.disjunct, root.dtype)
        found = inspected(root.bounds, domains.subdomains(rows), seen, thresholds)
        columns, splittable = most_promising(found)
        children = [domains.child(found.child(columns, s)).select(splittable) for s in (1, -1)]
        levels.append(joined(children))
    return levels


@pytest.mark.parametrize("seed", seeds(1, 3))
@pytest.mark.parametrize("depth", [0.1, 0.3])
def test_what_is_unsafe_in_a_sub_domain_lies_in_its_half_space_and_within_its_new_limits(
    seed: int, depth: float
) -> None:
    network, instance, points = asked(seed, depth)
    assert len(points) > 100
    known = bounded(network, instance, Method.CROWN)
    searched = context(network, instance, known)
    root = SplitRoot.of(searched)
    clipping = Clipping(searched, root)
    inputs = root.bounds.space.columns_of(network.values(points))
    changed = checked = 0
    for domains in split(root):
        rows = root.rows.of_domains(domains.disjunct, root.dtype)
        parents = domains.subdomains(rows)
        thresholds = root.rows.goal(domains.disjunct, root.dtype)
        seen = clipping.seen(parents)
        half_spaces = clipping.half_spaces(domains, seen)
        found = clipping.clipped(domains, inspected(root.bounds, parents, seen, thresholds))
        if half_spaces is None or found is None:
            continue
        of = dict(zip(half_spaces[0].tolist(), range(len(domains)), strict=False))
        slopes, limits = half_spaces[1].slopes.double(), half_spaces[1].limits
        for index in range(len(domains)):
            inside = (inputs * domains.phases[index] >= 0).all(1)
            if index in of:
                at = points[inside].double() @ slopes[of[index]]
                assert (at <= limits[of[index]] + 1e-9).all()
                checked += len(at)
            assert (inputs[inside] >= found.lower[index] - 1e-6).all()
            assert (inputs[inside] <= found.upper[index] + 1e-6).all()
        changed += int((found.lower > domains.lower).sum() + (found.upper < domains.upper).sum())
        assert ((found.ceiling == 0) | (found.lower == domains.lower).all(1)).all()
    assert checked > 100
    assert changed > 20
