"""One case of a property: what is known on the way to its proof, and what is left to a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.refinement import Depth
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


@dataclass(frozen=True)
class OpenCase:
    """What a branch and bound goes on with: case `number` of the property, over a network.

    `deepen`: bounds neurons anew, by trees as deep as that, until a share of the time is over; the
    nodes whose trees grew.
    """

    network: BoundNetwork
    settings: Settings
    number: int
    progress: CaseProgress
    deepen: Callable[[Depth, float], frozenset[str]] = lambda depth, until: frozenset()

    @property
    def free_inputs(self) -> int:
        """Inputs that vary by more than rounding."""
        return int(self.progress.box.varying.sum())
