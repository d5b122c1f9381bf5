"""Steps along interval gradients (MixTrain, Wang et al. 2018, section 5): of linear bounds over a
small box around a point, which see past its flat or jagged neighbourhood, instead of the gradient
at the point.

The paper's body could not be read. As told elsewhere, the box grows threefold while it is proved to
hold no counterexample, and the step is along the signs of the bound's coefficients. That it goes as
far as the box reaches, and by the constraint of a target that is furthest from holding, is our own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.attack.region import Region
from runner.engine.bounds.boxes import BoxPropagator
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.tagging import Tagger

# Of the radius of the property's box: the first small box, and by how much the next one is larger.
FIRST_SHARE = 0.01
GROWTH = 3.0


class IntervalSteps:
    """A guide of an attack. `most`: boxes that are bounded at once."""

    def __init__(self, boxes: BoxPropagator, most: int, tag: Tagger) -> None:
        self._boxes = boxes
        self._most = most
        self._tag = tag

    @torch.no_grad()
    def __call__(self, x: Tensor, lower: Tensor, upper: Tensor, region: Region) -> Tensor:
        """A step of each point [T, R, *input], in the boxes [T, *input]."""
        targets, restarts = x.shape[:2]
        of = torch.arange(targets, device=x.device).repeat_interleave(restarts)
        points = x.detach().flatten(0, 1)
        parts = [
            self._stepped(some, Interval(lower[at], upper[at]), region, at)
            for some, at in zip(points.split(self._most), of.split(self._most), strict=True)
        ]
        return torch.cat(parts).reshape(x.shape)

    def _stepped(self, x: Tensor, whole: Interval, region: Region, of: Tensor) -> Tensor:
        """Points [N, *input], each in its box of `whole`, of target `of` [N]."""
        radius = (whole.upper - whole.lower) / 2
        step, safe, share = torch.zeros_like(x), torch.arange(len(x), device=x.device), FIRST_SHARE
        while len(safe) and share <= 1:
            reach = share * radius[safe]
            small = Interval(
                torch.maximum(x[safe] - reach, whole.lower[safe]),
                torch.minimum(x[safe] + reach, whole.upper[safe]),
            )
            margin, coefficients = self._furthest(small, region, of[safe])
            # What is no number leads nowhere.
            step[safe] = reach * coefficients.reshape(reach.shape).sign().nan_to_num()
            safe, share = safe[margin > 0], share * GROWTH
        return torch.minimum(torch.maximum(x - step, whole.lower), whole.upper)

    def _furthest(self, box: Interval, region: Region, of: Tensor) -> tuple[Tensor, Tensor]:
        """Of the constraint of each target that is furthest from holding in its box [N, *input]: by
        how much at least [N], and the coefficients of that bound [N, inputs].
        """
        bounds = self._boxes.bound(box, {})
        with self._tag.kind(Memory.A):
            rows, limits = region.matrix[of], region.rhs[of]
            count = limits.shape[1]
            at = torch.arange(len(of), device=rows.device).repeat_interleave(count)
        found = self._boxes.rows(bounds, rows.flatten(0, 1), at)
        margin = found.lower.reshape(limits.shape) - limits
        best, constraint = margin.max(1)
        chosen = torch.arange(len(of), device=rows.device) * count + constraint
        return best, found.coefficients[chosen]
