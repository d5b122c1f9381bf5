"""Moved values: whatever of them a rank has, its gradients go the way of the other ranks'."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import Builder


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("index", [[], [-1, -1], [2, -1]])
def test_coefficients_depend_on_those_behind_even_where_nothing_is_taken(
    index: list[int], once: bool
) -> None:
    """Of what a rank keeps, an index that uses other values twice may take none."""
    builder = Builder((3,))
    name = builder.select("x", torch.tensor(index, dtype=torch.long))
    builder.nodes[-1] = replace(builder.nodes[-1], attributes={"once": once, "zeros": True})
    rule = builder.network().bound().linear[name]
    rows = torch.ones(1, 1, len(index), requires_grad=True)
    ((found,), _) = rule.backward(rows)
    assert found.requires_grad
    (gradient,) = torch.autograd.grad(found.sum(), rows)
    assert gradient.flatten().tolist() == [float(place >= 0) for place in index]
