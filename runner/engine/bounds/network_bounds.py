"""What is known of a network over boxes, and how it is to be found."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Method
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.relu import ReluRelaxation
from runner.engine.bounds.rule_kinds import RuleRelaxation

# Of the work of a backward pass, what a forward pass before it may take.
FORWARD_SHARE = 0.25


@dataclass(frozen=True)
class Settings:
    """`row_block`: rows of A that exist at once; both sides of a neuron are two rows.

    `interval_only`: start nodes that keep their interval bounds. `forward_share`: of the work of a
    backward pass at a start node, what a forward pass before it may take. `least_rows`: of a tile,
    where there are as many. `without`: parts that are left out, each where it would be tried.
    """

    method: Method = Method.ALPHA_CROWN
    row_block: int = 256
    alpha: AlphaSettings = field(default_factory=AlphaSettings)
    interval_only: frozenset[str] = frozenset()
    budget: Budget = CORE
    forward_share: float = FORWARD_SHARE
    least_rows: int = 0
    without: frozenset[EnginePart] = frozenset()


@dataclass(frozen=True)
class NetworkBounds:
    """Bounds over one batch of boxes: of every node, and the relaxations made from them.

    `searching`: the relaxations in the precision that α is searched in, rounded outwards, so that
    they hold. `unstable`: the relaxed nodes whose input changes sign somewhere. `settled`: by start
    node, neurons [n] whose forms leave nothing to a backward pass. `fine`: nodes that proofs cross
    in float64, whatever the bounds are in; `raised`: the relaxations of those, in it.
    """

    box: Interval
    intervals: dict[str, Interval]
    relaxations: dict[str, RuleRelaxation | ReluRelaxation] = field(default_factory=dict)
    searching: dict[str, RuleRelaxation | ReluRelaxation] = field(default_factory=dict)
    unstable: set[str] = field(default_factory=set)
    settled: dict[str, Tensor] = field(default_factory=dict)
    fine: frozenset[str] = frozenset()
    raised: dict[str, RuleRelaxation | ReluRelaxation] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        return self.box.lower.dtype

    @property
    def lines(self) -> dict[str, RuleRelaxation | ReluRelaxation]:
        """The relaxations that proofs use."""
        return {**self.relaxations, **self.raised}
