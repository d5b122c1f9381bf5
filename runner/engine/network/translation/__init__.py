"""From ONNX's nodes to the bound graph: plain data, and its tensors beside it."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator, MutableMapping

from runner.engine.network.convert import Converted
from runner.engine.network.draft import Array
from runner.engine.network.graph import Graph
from runner.engine.network.translation import (
    composites,
    conversions,
    decisions,
    moves,
    pointwise,
    pools,
    products,
    reductions,
)
from runner.engine.network.translation.builder import Builder
from runner.engine.network.translation.registry import Translation


class _Translations(UserDict[str, Translation]):
    """With functions of one variable, once a name is asked for that is no other operator's: what
    declares them imports torch, which takes longer than to print a plan.
    """

    def __contains__(self, name: object) -> bool:
        return name in self.data or name in self._whole()

    def __getitem__(self, name: str) -> Translation:
        return self.data[name] if name in self.data else self._whole()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def _whole(self) -> dict[str, Translation]:
        from runner.engine.network.translation import functions

        self.data = {**functions.TRANSLATIONS, **self.data}
        return self.data


# One for each operator of ONNX that is supported.
TRANSLATIONS: MutableMapping[str, Translation] = _Translations(
    {
        **composites.TRANSLATIONS,
        **conversions.TRANSLATIONS,
        **decisions.TRANSLATIONS,
        **moves.TRANSLATIONS,
        **pointwise.TRANSLATIONS,
        **pools.TRANSLATIONS,
        **products.TRANSLATIONS,
        **reductions.TRANSLATIONS,
    }
)


def translated(network: Converted) -> tuple[Graph, dict[str, Array]]:
    """The bound graph of a network, and its parameters by name.

    Every operator becomes nodes with the weights that the file has, or that follow from them
    exactly; the output is flat. Raises InstanceError UNSUPPORTED_OPERATOR.
    """
    build = Builder(network)
    for node in network.draft.graph.node:
        translation = TRANSLATIONS.get(node.op_type)
        if translation is None:
            names = ", ".join(sorted(TRANSLATIONS))
            raise build.refused(node, f"supported operators: {names}")
        build.give(node, translation(build, node))
    return build.graph(), build.tensors
