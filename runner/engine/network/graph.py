"""The bound graph as plain data: what the propagation driver walks. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Attribute = int | float | bool | str | tuple[int, ...]


class Dtype(StrEnum):
    """What a network is computed in; the words are torch's and numpy's."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"

    @property
    def bytes(self) -> int:
        return 8 if self is Dtype.FLOAT64 else 4


class Op(StrEnum):
    """Operators with tested bounds; everything else is refused as `unsupported_operator`.

    Shapes leave the batch dimension out. Parameters are names of tensors in the weight file.
    `weight` and `bias` are of the graph's dtype and equal what the file says to the last bit, or
    follow from it exactly. `scale` and `shift` are float64, whatever the dtype is; what cannot be
    computed from the file exactly (the square root in a BatchNormalization, a reciprocal) has
    `scale_error` or `shift_error` beside it: bounds, entry by entry, of how far it may lie from
    what real arithmetic gives. Where there is none, it is exact.
    """

    INPUT = "input"
    LINEAR = "linear"  # weight [out, in], bias [out]; input and output are flat
    CONV = "conv"  # weight [out, in/groups, kh, kw], bias [out]; stride, padding, dilation, groups
    RELU = "relu"
    ADD = "add"  # of two nodes of one shape
    SUB = "sub"  # first minus second, both nodes of one shape
    # scale * x + shift, of shapes that broadcast to the node's; scale_error, shift_error: see above
    AFFINE = "affine"
    RESHAPE = "reshape"  # to the node's own shape, row-major
    # the input's values at flat positions index [*shape], -1: zero; once: none of them twice;
    # zeros: whether there is a -1
    SELECT = "select"
    CONCAT = "concat"  # axis (without the batch dimension)
    MAXPOOL = "maxpool"  # kernel, stride, padding: 2 ints
    AVGPOOL = "avgpool"  # kernel, stride, padding: 2 ints; padding counts as zeros
    SIGMOID = "sigmoid"
    TANH = "tanh"
    EXP = "exp"
    SQRT = "sqrt"
    SQUARE = "square"
    RECIPROCAL = "reciprocal"
    SIN = "sin"
    COS = "cos"
    FUNCTION = "function"  # `function`, by name, of runner.engine.functions; its attributes
    PRODUCT = "product"  # of an input [2, *shape], the first times the second
    # of an input [batch, values]: of a matrix [rows, length] and, behind it, one [length, columns]
    # the product; attributes: these four
    MATMUL = "matmul"
    # of an input [groups, count], for each value x of a group the sum of exp(other - x) over the
    # group: what a softmax divides by
    EXP_SUMS = "exp_sums"


# Functions of one variable whose lines are in runner.engine.bounds.curves.
CURVES = frozenset({Op.EXP, Op.SQRT, Op.SQUARE, Op.RECIPROCAL, Op.SIN, Op.COS})
# What is not linear, and so is relaxed.
RELAXED = frozenset(
    {
        *(Op.RELU, Op.MAXPOOL, Op.SIGMOID, Op.TANH, Op.FUNCTION, *CURVES),
        *(Op.PRODUCT, Op.MATMUL, Op.EXP_SUMS),
    }
)
# Functions of each value by itself.
OF_EACH_VALUE = frozenset({Op.RELU, Op.SIGMOID, Op.TANH, Op.FUNCTION, *CURVES})


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
    """Nodes in topological order; the first is the only INPUT.

    `dtype`: of the file's own weights, and what inputs and outputs are computed in. `lowest`: what
    ONNX Runtime computes some of the values in, where the file casts them.
    """

    nodes: tuple[Node, ...]
    output: str
    dtype: Dtype = Dtype.FLOAT32
    lowest: Dtype | None = None

    @property
    def input(self) -> Node:
        return self.nodes[0]

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
