"""What a verification needs of whoever bounds, and on what network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.attack.pgd import Guide
from runner.engine.bounds.budget import Budget
from runner.engine.clock import Deadline
from runner.engine.finding import Confirmation
from runner.engine.search.cases import OpenCase
from runner.engine.search.sharing import Sharing
from runner.engine.specs import Room, no_room
from runner.engine.targets import Target
from runner.problem.property.model import Property


class Bounding(Protocol):
    """The incomplete phase of one instance."""

    method: Method

    def run(self, tightest: Method, *, splits: bool = False, searched: bool = False) -> None:
        """Methods from the cheapest to `tightest`, until nothing is open; may raise. `splits`:
        whether boxes are cut after that, so that what is dear over the whole one can wait;
        `searched`: whether boxes or neurons are split, so that what gains little is left out.
        """
        ...

    def enumerate_cells(self) -> None:
        """Where boxes fall into finitely many cells, closes what none of them reaches; may raise.
        Nothing where the engine knows of none.
        """
        ...

    def close(self, target: Target) -> None:
        """A disjunct that is not to be bounded any more."""
        ...

    @property
    def open_targets(self) -> list[Target]: ...

    @property
    def open_cases(self) -> list[OpenCase]:
        """What a branch and bound can go on with; none where the engine knows none."""
        ...

    @property
    def lower_bound(self) -> float: ...

    @property
    def progress(self) -> str:
        """How far the bounds of layers came, in words."""
        ...


class VerificationEngine(Protocol):
    """A loaded network: what the phases of a verification need of it."""

    input_shape: tuple[int, ...]
    neurons: int
    weight_bytes: int
    budget: Budget
    dtype: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        """[B, *input_shape] -> [B, outputs], differentiable."""
        ...

    def exact(self, x: Tensor) -> Tensor:
        """The same in float64, whatever the engine computes in."""
        ...

    def bounding(self, instance: Property, deadline: Deadline, room: Room = no_room) -> Bounding:
        """`room`: how far above its limit each row must be proved."""
        ...

    def excluded_exactly(self, instance: Property, target: Target) -> bool:
        """Whether rational arithmetic proves at once that no point meets a disjunct."""
        ...

    def guide(self, checkpoint: Callable[[], None]) -> Guide | None:
        """What an attack by intervals steps by; None where there are no bounds of boxes.
        `checkpoint` may raise between passes.
        """
        ...

    def attacking(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        """Which starts of an attack are this rank's."""
        ...

    def sharing(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        """Which sub-problems of a branch and bound are this rank's."""
        ...
