"""A gang under a strategy: a group of ranks along each axis, and one beside it."""

from __future__ import annotations

from runner.contract.layout import Axis
from runner.contract.strategy import Strategy
from runner.engine.layout.group import Group


class Mesh:
    """Made on all ranks at the same time.

    Axes that are spread over the same ranks have the same group along them, by identity.
    """

    def __init__(self, world: Group, strategy: Strategy) -> None:
        """Raises UsageError for a gang of another size than the strategy's."""
        self.world = world
        self._along = {axis: world.part(strategy.along(axis, world.size)) for axis in Axis}
        self._beside = {axis: world.part(strategy.beside(axis, world.size)) for axis in Axis}
        # Ranks that share the rows of start nodes, and those that bound the same ones.
        self.sharers = world.part(strategy.sharers(world.size))
        self.beside_sharers = world.part(strategy.beside_sharers(world.size))

    def along(self, axis: Axis) -> Group:
        """The ranks over which this one's part of everything else is spread by this axis."""
        return self._along[axis]

    def beside(self, axis: Axis) -> Group:
        """The ranks that have the same part by this axis, and so must go the same way."""
        return self._beside[axis]
