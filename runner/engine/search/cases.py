"""What is known of one case of a property on the way to its proof."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import NetworkBounds
from runner.engine.specs import Specs


@dataclass
class CaseProgress:
    """What is proved of one case: the best margin [disjuncts] and which disjuncts are open.

    `box` and `known`, bounds over it, are in the precision that the case is worked on in.
    """

    box: Interval
    specs: Specs
    margins: Tensor
    open: Tensor
    known: NetworkBounds | None = field(default=None)

    @property
    def bound(self) -> float:
        """The least margin: the case is excluded when it is positive."""
        return float(self.margins.min()) if len(self.margins) else math.inf
