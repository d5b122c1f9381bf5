"""What bounds of many boxes say of the disjuncts of a case."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Planes:
    """Below K rows of each disjunct of N boxes, or mixes of them, all over the box from `lower` to
    `upper` [N, inputs]: `missing` [N, disjuncts, K], by how much each may lie below its threshold
    in its lowest corner at most, inf where that is not known, and `slopes` [N, disjuncts, K,
    inputs]; all in float64.
    """

    lower: Tensor
    upper: Tensor
    missing: Tensor
    slopes: Tensor

    def select(self, index: Tensor) -> Planes:
        """Of boxes by number or by mask."""
        return Planes(*(getattr(self, field.name)[index] for field in fields(self)))

    def among(self, index: Tensor, count: int) -> Planes:
        """As those of some boxes among so many; of the others nothing is known."""
        parts = []
        for field, unknown in zip(fields(self), (0.0, 0.0, torch.inf, 0.0), strict=True):
            mine = getattr(self, field.name)
            whole = mine.new_full((count, *mine.shape[1:]), unknown)
            whole[index] = mine
            parts.append(whole)
        return Planes(*parts)

    def of_mix(self, box: Tensor, disjunct: Tensor, lower: Tensor, slopes: Tensor) -> None:
        """Puts other mixes, which lie `lower` [M] above their thresholds at least, in the place of
        the last ones of some boxes and disjuncts [M].
        """
        self.missing[box, disjunct, -1] = (-lower).clamp(min=0)
        self.slopes[box, disjunct, -1] = slopes


@dataclass(frozen=True)
class Margins:
    """Of N boxes and each disjunct [N, disjuncts]: how far it is excluded, proved. Of the bounds
    that say so, [N, disjuncts, inputs]: the `slopes` of their mix, and how `steep` each input makes
    what a cut may take away; `weights` [N, disjuncts, rows]. Where known, of each input [N,
    inputs], `opened`: how much of what is open in the first layers it makes up, and `opening`: how
    far the bounds of all ReLUs that stay open go for a unit of it; and `planes`.
    """

    margins: Tensor
    slopes: Tensor
    steep: Tensor
    weights: Tensor
    opened: Tensor | None = None
    opening: Tensor | None = None
    planes: Planes | None = None

    def tightened(self, boxes: Tensor, other: Margins) -> Margins:
        """With what is greater in the other, which is of some of the boxes [M]."""
        better = other.margins > self.margins[boxes]
        box, disjunct = better.nonzero().unbind(1)
        found = {}
        for name in ("margins", "slopes", "steep", "weights"):
            changed = getattr(self, name).clone()
            changed[boxes[box], disjunct] = getattr(other, name)[box, disjunct]
            found[name] = changed
        planes = None if other.planes is None else other.planes.among(boxes, len(self.margins))
        return Margins(**found, planes=planes)

    @staticmethod
    def joined(parts: list[Margins]) -> Margins:
        return Margins(
            torch.cat([part.margins for part in parts]),
            torch.cat([part.slopes for part in parts]),
            torch.cat([part.steep for part in parts]),
            torch.cat([part.weights for part in parts]),
        )
