"""What a plane below a row leaves of a box: where it lies above the row's threshold, all is proved.

Over a box, a plane with coefficients a is nowhere lower than the bound b. Going d along one input,
from that end of it which is the lower one for the plane, it is at least b + |a| d, whatever the
other inputs are. So with b no further than D below the threshold, nothing is left of the box that
is further than D / |a| from that end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from runner.engine.bounds.rounding import smallest, unit
from runner.engine.search.box_store import Boxes

B = TypeVar("B", bound=Boxes)

# What is cut off lies above its threshold by no less than half of so much of what is missing.
ROOM = 1e-3
# Of a quotient, its factors and a sum.
_ROUNDINGS = 32


def proved_margin(missing: Tensor) -> Tensor:
    """By how much at least what is cut off lies above its threshold: [R]."""
    return missing * (ROOM / 2) + smallest(missing.dtype)


def left(boxes: B, of: Tensor, planes: Tensor, missing: Tensor) -> B:
    """Parts in which no plane is above its threshold: planes [R, inputs], each over its box `of`
    [R], and how far below its threshold each may be at most, `missing` [R].
    """
    lower, upper = boxes.lower[of], boxes.upper[of]
    rounding, least = _ROUNDINGS * unit(planes.dtype), smallest(planes.dtype)
    wanted = (missing * (1 + ROOM) + 4 * least).unsqueeze(1)
    reach = (wanted / planes.abs() * (1 + rounding)).nan_to_num(nan=torch.inf)
    reach = reach + (lower.abs() + upper.abs()) * rounding + least
    lower = torch.where(planes < 0, torch.maximum(lower, upper - reach), lower)
    upper = torch.where(planes > 0, torch.minimum(upper, boxes.lower[of] + reach), upper)
    index = of.unsqueeze(1).expand_as(planes)
    lower = boxes.lower.scatter_reduce(0, index, lower, "amax")
    upper = boxes.upper.scatter_reduce(0, index, upper, "amin")
    # Where planes leave no point together, those of the box are bounded again as they are.
    there = (lower <= upper).all(1, keepdim=True)
    return replace(
        boxes,
        lower=torch.where(there, lower, boxes.lower),
        upper=torch.where(there, upper, boxes.upper),
    )


def share(boxes: Boxes, whole: Boxes) -> Tensor:
    """Of boxes, parts of whole ones: what share of the volume they have [N]."""
    wide = whole.upper - whole.lower
    return torch.where(wide > 0, (boxes.upper - boxes.lower) / wide, 1.0).prod(1)
