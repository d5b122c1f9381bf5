"""What a VNN-LIB 2.0 query declares: networks, and the variables of their inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass

REAL = "real"
# What is proved, is proved of these.
ELEMENT_TYPES = (REAL, "float32", "float64")


@dataclass(frozen=True)
class Variable:
    """One input or output: its `name`, its element `type` as the file writes it, its `shape`."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def head(self) -> str:
        """As the first line of its assignment."""
        return f"{self.name} {self.type} [{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Network:
    """`own_model`: it needs an ONNX file; one that is `equal-to` another has that one's."""

    name: str
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    own_model: bool = True
