"""Operators that are a function of each value: whatever `runner.engine.functions` declares."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from runner.engine.functions import FAMILIES
from runner.engine.network.graph import Node
from runner.engine.network.translation.builder import Builder
from runner.engine.network.translation.registry import Translation


def _function(build: Builder, node: NodeProto) -> Node:
    attributes: dict[str, float | str] = {}
    for name, default in FAMILIES[node.op_type].defaults.items():
        value = build.attribute(node, name, default)
        # The file's numbers are of float32.
        attributes[name] = value.decode() if isinstance(value, bytes) else value
        if not isinstance(attributes[name], str):
            attributes[name] = float(np.float32(value))
    return build.applied(node.op_type, build.source(node), **attributes)


TRANSLATIONS: dict[str, Translation] = dict.fromkeys(FAMILIES, _function)
