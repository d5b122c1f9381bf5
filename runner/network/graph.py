"""The bound graph as plain data: what the propagation driver walks. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.vocabulary import StrEnum

Attribute = int | float | bool | str | tuple[int, ...]


class Op(StrEnum):
    """Operators with tested bounds; everything else is refused as `unsupported_operator`.

    Shapes leave the batch dimension out. Parameters are names of tensors in the weight file.
    """

    INPUT = "input"
    LINEAR = "linear"  # weight [out, in], bias [out]; input and output are flat
    CONV = "conv"  # weight [out, in/groups, kh, kw], bias [out]; stride, padding, dilation, groups
    RELU = "relu"
    ADD = "add"  # of two nodes of one shape
    SUB = "sub"  # first minus second, both nodes of one shape
    AFFINE = "affine"  # scale * x + shift, both of the node's shape after broadcasting
    RESHAPE = "reshape"  # to the node's own shape, row-major
    CONCAT = "concat"  # axis (without the batch dimension)
    MAXPOOL = "maxpool"  # kernel, stride, padding: 2 ints
    AVGPOOL = "avgpool"  # kernel, stride, padding: 2 ints; padding counts as zeros
    SIGMOID = "sigmoid"
    TANH = "tanh"


@dataclass(frozen=True)
class Node:
    """One operator. `shape`: its output's, without the batch dimension."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of neurons (flat)."""
        total = 1
        for length in self.shape:
            total *= length
        return total


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order; the first is the only INPUT."""

    nodes: tuple[Node, ...]
    output: str
    dtype: str = "float32"

    @property
    def input(self) -> Node:
        return self.nodes[0]

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
