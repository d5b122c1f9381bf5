"""What planes below the rows of a conjunction leave of a box: its counterexamples are all in there.

Over a box, a plane with coefficients a lies nowhere lower than D below its row's threshold, and
lowest in one corner. At x it is at least sum_j |a_j| d_j - D, with d_j how far x_j is from that
corner. A counterexample meets all rows, so that of each plane d_j is at most what the others leave
of D, divided by |a_j|; what one plane cuts off leaves less for the next (bound propagation; Zhou et
al. 2025 call it relaxed clipping). Where they leave nothing, the conjunction holds nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.bounds.rounding import gamma, outer, smallest
from runner.engine.search.box_store import Boxes
from runner.engine.search.clipped import ROOM, proved_margin
from runner.engine.search.margins import Planes

# How often what is left of a box is cut again.
PASSES = 3
# Products and sums of a plane over a box beside one for each input.
_ROUNDINGS = 16


@dataclass(frozen=True)
class Shrunk:
    """What is left of N boxes: `lower`, `upper` [N, inputs]; of each disjunct [N, disjuncts],
    whether it is `closed` now, and how far at least what is cut off lies above its thresholds:
    `margins`, inf where nothing is or where it was closed before.
    """

    lower: Tensor
    upper: Tensor
    closed: Tensor
    margins: Tensor


def shrunk(boxes: Boxes, planes: Planes) -> Shrunk:
    """What planes over boxes, or over larger ones, leave of them: all that those of any open
    disjunct do.
    """
    low, high, empty = _cut(boxes.lower.to(planes.slopes), boxes.upper.to(planes.slopes), planes)
    closed, still = boxes.open & empty, (boxes.open & ~empty).unsqueeze(2)
    low = torch.where(still, low, torch.inf).amin(1)
    high = torch.where(still, high, -torch.inf).amax(1)
    low, high = outer(low, high, boxes.lower.dtype)
    some = still.any(1)
    low = torch.where(some, low.maximum(boxes.lower), boxes.lower)
    high = torch.where(some, high.minimum(boxes.upper), boxes.upper)
    smaller = ((low > boxes.lower) | (high < boxes.upper)).any(1, keepdim=True)
    # What is cut off lies beyond a plane of each disjunct that was open.
    proved = proved_margin(planes.missing).amin(2)
    return Shrunk(low, high, closed, torch.where(boxes.open & smaller | closed, proved, torch.inf))


def _cut(lower: Tensor, upper: Tensor, planes: Planes) -> tuple[Tensor, Tensor, Tensor]:
    """Of boxes [N, inputs]: the ends of what the planes of each disjunct leave [N, disjuncts,
    inputs], the box's own where that is nothing, and whether it is [N, disjuncts].
    """
    dtype, disjuncts = lower.dtype, planes.missing.shape[1]
    rounding, least = gamma(lower.shape[1] + _ROUNDINGS, dtype), smallest(dtype)
    whole = tuple(end[:, None].expand(-1, disjuncts, -1) for end in (lower, upper))
    first, last = planes.lower[:, None, None], planes.upper[:, None, None]
    rises, falls, steep = planes.slopes > 0, planes.slopes < 0, planes.slopes.abs()
    outside = ((lower.abs() + upper.abs()) * rounding + least)[:, None, None]
    room = (planes.missing * (1 + ROOM) + 4 * least).unsqueeze(3)
    (low, high), empty = whole, torch.zeros_like(planes.missing[..., 0], dtype=torch.bool)
    for _ in range(PASSES):
        start, end = low.unsqueeze(2), high.unsqueeze(2)
        moved = torch.where(rises, start - first, last - end)
        rest = room - (steep * moved).sum(3, keepdim=True) * (1 - rounding)
        reach = rest / steep * (1 + rounding) + outside
        # What is no number cuts nothing.
        until = torch.where(rises & (reach < torch.inf), start + reach, torch.inf).amin(2)
        since = torch.where(falls & (reach < torch.inf), end - reach, -torch.inf).amax(2)
        empty = empty | (rest < 0).any(3).any(2)
        low, high = low.maximum(since), high.minimum(until)
        empty = empty | (low > high).any(2)
        low, high = (
            torch.where(empty.unsqueeze(2), ends, found)
            for ends, found in zip(whole, (low, high), strict=True)
        )
    return low, high, empty
