"""Mixing the rows of a conjunction: sound, never worse than one row, near a linear program."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from runner.engine.search.disjuncts import Disjuncts
from runner.engine.specs import Specs


def specs(*counts: int) -> Specs:
    disjunct = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    total = sum(counts)
    nothing = torch.zeros(total)
    return Specs(torch.zeros(total, 1), nothing, nothing, disjunct, len(counts))


def random(boxes: int, rows: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Least values, coefficients and radii."""
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(boxes, rows, inputs, generator=generator)
    radius = torch.rand(boxes, inputs, generator=generator)
    centre = torch.randn(boxes, rows, generator=generator)
    return centre - (slopes.abs() * radius[:, None]).sum(2), slopes, radius


def optimum(lower: Tensor, slopes: Tensor, radius: Tensor) -> float:
    """min over x of the greatest row, which is the best mix's least value."""
    centre = lower + (slopes.abs() * radius).sum(1)
    count, inputs = slopes.shape
    solved = linprog(
        [*np.zeros(inputs), 1.0],
        A_ub=np.hstack([slopes.numpy(), -np.ones((count, 1))]),
        b_ub=-centre.numpy(),
        bounds=[*((-float(r), float(r)) for r in radius), (None, None)],
    )
    return float(solved.fun)


def test_a_mix_lies_between_the_best_row_and_the_best_mix() -> None:
    counts = (1, 4, 2)
    lower, slopes, radius = random(40, sum(counts), 5)
    margins, weights = Disjuncts(specs(*counts)).mixed(lower, slopes, radius)
    gained = wanted = 0.0
    start = 0
    for disjunct, count in enumerate(counts):
        rows = slice(start, start + count)
        start += count
        for box in range(len(lower)):
            best_row = float(lower[box, rows].max())
            best_mix = optimum(lower[box, rows], slopes[box, rows], radius[box])
            assert best_row - 1e-5 <= margins[box, disjunct] <= best_mix + 1e-5
            gained += float(margins[box, disjunct]) - best_row
            wanted += best_mix - best_row
    assert gained > 0.85 * wanted
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(2), torch.ones(40, 3, dtype=torch.float64))
    assert (weights[:, 0, 1:] == 0).all()
    assert (weights[:, 1, [0, 5, 6]] == 0).all()


def test_weights_give_the_margin() -> None:
    lower, slopes, radius = random(20, 3, 4)
    margins, weights = Disjuncts(specs(3)).mixed(lower, slopes, radius)
    centre = lower + (slopes.abs() * radius[:, None]).sum(2)
    mix = (weights[:, 0, :, None] * slopes).sum(1)
    least = (weights[:, 0] * centre).sum(1) - (mix.abs() * radius).sum(1)
    assert torch.allclose(least, margins[:, 0], atol=1e-5)


def test_rows_without_a_bound_and_disjuncts_without_rows_exclude_nothing() -> None:
    lower, slopes, radius = random(2, 2, 3)
    lower[0] = torch.tensor([-torch.inf, 3.0])
    lower[1] = torch.tensor([-torch.inf, -torch.inf])
    nothing = torch.zeros(2)
    rows = Specs(torch.zeros(2, 1), nothing, nothing, torch.tensor([0, 0]), 2)
    disjuncts = Disjuncts(rows)
    margins, weights = disjuncts.mixed(lower, slopes, radius)
    assert margins[0, 0] == 3
    assert weights[0, 0].tolist() == [0, 1]
    assert margins[1, 0] == -torch.inf
    assert (margins[:, 1] == -torch.inf).all()


def test_only_rows_with_something_in_common_cancel() -> None:
    def found(*rows: list[float]) -> bool:
        nothing = torch.zeros(len(rows))
        disjunct = torch.zeros(len(rows), dtype=torch.long)
        return Disjuncts(Specs(torch.tensor(rows), nothing, nothing, disjunct, 1)).cancel

    assert not found([1.0, -1.0])
    assert not found([1.0, -1.0, 0.0], [1.0, 0.0, -1.0])
    assert found([1.0, 0.0], [-1.0, 0.0])
    assert found([1.0, -1.0, 0.0], [0.0, 1.0, -1.0])
