"""One operator of ONNX, or a few, in one of its forms: what the tests of all of them are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnx_models import OPSET, constant, node

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """Nodes from `x` to `y` with constants by name."""

    nodes: Sequence[onnx.NodeProto]
    before: Shape
    after: Shape
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = OPSET

    def __str__(self) -> str:
        said = [f"{n.op_type}({', '.join(f'{a.name}' for a in n.attribute)})" for n in self.nodes]
        return f"{' '.join(said)} {self.before}"


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


IMAGE, ROWS, VOLUME = (1, 2, 5, 4), (1, 3, 4), (1, 2, 3, 3, 2)
W = constant((5, 4))


def one(kind: str, before: Shape, after: Shape, inputs: str = "x", **rest: Any) -> Form:
    """One node; of `rest`, arrays are constants and what else is not `opset` its attributes."""
    constants: dict[str, Any] = {
        k: v for k, v in rest.items() if isinstance(v, (np.ndarray, np.generic))
    }
    opset = int(rest.pop("opset", OPSET))
    attributes = {k: v for k, v in rest.items() if k not in constants}
    return Form([node(kind, inputs, **attributes)], before, after, constants, opset)


def cast(name: str) -> onnx.NodeProto:
    """To real numbers, which is what a network gives."""
    return node("Cast", name, to=TensorProto.FLOAT)
