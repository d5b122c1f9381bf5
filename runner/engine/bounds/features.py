"""What the driver asks of the features axis: which columns of A, and of all that goes with them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from runner.engine.bounds.relaxed import BentRule
from runner.engine.bounds.rule_kinds import LinearRule
from runner.engine.network.graph import Node


class Features(Protocol):
    """How the neurons of every node lie. The backward pass works on a rank's own columns only.

    `ranks`: how many parts a total is the sum of.
    """

    @property
    def ranks(self) -> int: ...

    def rule(self, node: Node, plain: LinearRule) -> LinearRule:
        """The rule of a linear node, with a backward pass over own columns."""
        ...

    def bent(self, node: Node, plain: BentRule) -> BentRule:
        """The rule of a relaxed node, ReLU apart; its sums are of own neurons."""
        ...

    def local(self, name: str, values: Tensor, leading: int) -> Tensor:
        """Of values [leading dimensions, *shape] of a node: the rank's own, a view."""
        ...

    def in_turn(self, count: int) -> slice:
        """Of so many things that ranks deal out among them: the rank's own."""
        ...

    def counted(self, name: str, constant: Tensor) -> Tensor:
        """A node's constant as a part of the total: once, where every rank computes it."""
        ...

    def whole(self, name: str, rows: Tensor) -> Tensor:
        """Of own columns [S, B, *own shape] of a node: those of all ranks [S, B, *shape]."""
        ...

    def arriving(self, name: str, rows: Tensor) -> Tensor:
        """Of columns [S, B, *shape] of a node that every rank has whole: own ones,
        differentiable.
        """
        ...

    def total(self, partial: Tensor) -> Tensor:
        """The sum of all ranks' partial bounds, differentiable, the same on every rank."""
        ...


class WholeFeatures:
    """Every rank has every column and every constant."""

    ranks = 1

    def rule(self, node: Node, plain: LinearRule) -> LinearRule:
        return plain

    def bent(self, node: Node, plain: BentRule) -> BentRule:
        return plain

    def local(self, name: str, values: Tensor, leading: int) -> Tensor:
        return values

    def in_turn(self, count: int) -> slice:
        return slice(0, count)

    def counted(self, name: str, constant: Tensor) -> Tensor:
        return constant

    def whole(self, name: str, rows: Tensor) -> Tensor:
        return rows

    def arriving(self, name: str, rows: Tensor) -> Tensor:
        return rows

    def total(self, partial: Tensor) -> Tensor:
        return partial
