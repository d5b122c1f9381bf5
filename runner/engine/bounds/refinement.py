"""Which bounds of layers are worth rows of their own, and until when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Refinement:
    """For which neurons of start nodes rows of their own are bounded, and until when.

    wanted: by node, flat neurons [n]; all of a node that is not named. over: asked before each
    block of rows; blocks after that keep the bounds that are there.
    """

    wanted: Mapping[str, Tensor] = field(default_factory=dict)
    over: Callable[[], bool] = lambda: False


# Interval bounds and forms alone.
NO_REFINEMENT = Refinement(over=lambda: True)
