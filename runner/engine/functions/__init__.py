"""Functions of one variable, each declared once: what it computes, and all that bounds ask for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from runner.engine.functions import smooth, steps
from runner.engine.functions.family import Family, Function
from runner.engine.network.graph import Node

# Of operators of ONNX, by their names, which `translation` takes as they are.
FAMILIES: dict[str, Family] = {**smooth.FAMILIES, **steps.FAMILIES}
ALL = {**FAMILIES, **smooth.INNER, **steps.INNER}


def function_of(node: Node) -> Function:
    """Of a FUNCTION node."""
    attributes = dict(node.attributes)
    return named(str(attributes.pop("function")), attributes)


def named(name: str, attributes: Mapping[str, Any]) -> Function:
    return _made(name, tuple(sorted(attributes.items())))


@lru_cache(maxsize=256)
def _made(name: str, attributes: tuple[tuple[str, float | str], ...]) -> Function:
    return ALL[name].make(**dict(attributes))
