"""From ONNX's nodes to the bound graph: plain data, and its tensors beside it."""

from __future__ import annotations

from runner.engine.network.convert import Converted
from runner.engine.network.draft import Array
from runner.engine.network.graph import Graph
from runner.engine.network.translation import (
    composites,
    conversions,
    decisions,
    functions,
    moves,
    pointwise,
    pools,
    products,
    reductions,
)
from runner.engine.network.translation.builder import Builder
from runner.engine.network.translation.registry import Translation

# One for each operator of ONNX that is supported.
TRANSLATIONS: dict[str, Translation] = {
    **composites.TRANSLATIONS,
    **conversions.TRANSLATIONS,
    **decisions.TRANSLATIONS,
    **functions.TRANSLATIONS,
    **moves.TRANSLATIONS,
    **pointwise.TRANSLATIONS,
    **pools.TRANSLATIONS,
    **products.TRANSLATIONS,
    **reductions.TRANSLATIONS,
}


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
