"""What translates an operator of ONNX: a function of its own, found by the operator's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import NodeProto

from runner.engine.network.graph import Node
from runner.engine.network.translation.builder import Builder

# Gives what the outputs are, in order, or the only one.
Translation = Callable[[Builder, NodeProto], "Node | Sequence[Node]"]
