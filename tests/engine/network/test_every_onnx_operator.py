"""Every operator of ONNX that is translated, in all its forms: it computes what ONNX Runtime does,
and its bounds hold. An operator without a form here fails the suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from examples import rest
from onnx import TensorProto, helper
from onnx_models import OPSET, constant, node, save
from small_networks import SmallNetwork, box_of
from sound_bounds import assert_sound

from runner.engine.network.graph import Op
from runner.engine.network.load import load_graph, prepare
from runner.engine.network.translation import TRANSLATIONS

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
KERNEL = constant((3, 2, 3, 2))
TURNED = constant((2, 3, 3, 2))
ONE = constant((1,))


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


FORMS = [
    # Values that move.
    one("Transpose", ROWS, (1, 4, 3), perm=[0, 2, 1]),
    one("Transpose", ROWS, (4, 1, 3), perm=[2, 0, 1]),
    one(
        "Slice",
        ROWS,
        (1, 2, 2),
        "x s e a t",
        s=ints(0, 3),
        e=ints(2, -5),
        a=ints(1, 2),
        t=ints(1, -2),
    ),
    one("Gather", ROWS, (1, 2, 2, 4), "x i", i=ints(0, 2, 2, 0).reshape(2, 2), axis=1),
    one("Gather", ROWS, (1, 4), "x i", i=np.array(-1), axis=1),
    one(
        "GatherElements", ROWS, (1, 3, 2), "x i", i=ints(0, 3, 1, 1, 2, 0).reshape(1, 3, 2), axis=2
    ),
    one("GatherND", ROWS, (2, 4), "x i", i=ints(0, 1, 0, 1).reshape(2, 2)),
    one(
        "Pad",
        IMAGE,
        (1, 2, 8, 5),
        "x p v",
        p=ints(0, 0, 1, 0, 0, 0, 2, 1),
        v=np.float32(0.5) * ONE[0],
    ),
    one("Pad", IMAGE, (1, 2, 7, 5), "x p", p=ints(0, 0, 2, 0, 0, 0, 0, 1), mode="reflect"),
    one("Pad", IMAGE, (1, 2, 6, 5), "x p", p=ints(0, 0, 1, 0, 0, 0, 0, 1), mode="edge"),
    one("Pad", (1, 3), (1, 5), pads=[0, 1, 0, 1], value=-2.0, opset=10),
    one("Expand", (1, 3, 1), (2, 3, 4), "x s", s=ints(2, 3, 4)),
    one("Tile", (1, 3), (1, 6), "x s", s=ints(1, 2)),
    one(
        "Resize",
        IMAGE,
        (1, 2, 10, 8),
        "x r s",
        r=np.zeros(0, np.float32),
        s=np.array([1, 1, 2, 2], np.float32),
        mode="nearest",
    ),
    one(
        "Upsample",
        IMAGE,
        (1, 2, 10, 8),
        "x s",
        s=np.array([1, 1, 2, 2], np.float32),
        mode="nearest",
        opset=9,
    ),
    one("DepthToSpace", (1, 4, 2, 2), (1, 1, 4, 4), blocksize=2),
    one("SpaceToDepth", (1, 1, 4, 4), (1, 4, 2, 2), blocksize=2),
    one(
        "ScatterElements",
        (1, 4),
        (1, 4),
        "x i u",
        i=ints(2, 0).reshape(1, 2),
        u=constant((1, 2)),
        axis=1,
    ),
    one("ScatterND", (1, 4), (1, 4), "x i u", i=ints(0, 2).reshape(1, 2), u=constant((1,))),
    one("ScatterND", (1,), (1, 4), "c i x", i=ints(0, 2).reshape(1, 2), c=constant((1, 4))),
    one("Trilu", ROWS, ROWS, opset=14),
    Form(
        [
            helper.make_node("Split", ["x"], ["a", "b"], "halves", axis=1),
            node("Mul", "b two", "c"),
            node("Add", "a c"),
        ],
        (1, 4),
        (1, 2),
        {"two": np.full(1, 2.0)},
    ),
    Form(
        [helper.make_node("Split", ["x", "n"], ["a", "y"], "parts", axis=2)],
        ROWS,
        (1, 3, 1),
        {"n": ints(3, 1)},
    ),
    one("Concat", ROWS, (1, 3, 8), "x x", axis=2),
    one("Concat", ROWS, (2, 3, 4), "x x", axis=0),
    one("Concat", ROWS, (1, 4, 4), "c x", c=constant((1, 1, 4)), axis=1),
    one("Reshape", ROWS, (2, 6), "x s", s=ints(2, 6)),
    one("Flatten", IMAGE, (2, 20), axis=2),
    one("Squeeze", (1, 3, 1), (3,), "x a", a=ints(0, 2)),
    one("Unsqueeze", ROWS, (1, 1, 3, 4), "x a", a=ints(1)),
    one("Identity", ROWS, ROWS),
    one("Dropout", ROWS, ROWS),
    one("Cast", ROWS, ROWS, to=TensorProto.FLOAT),
    # Products with weights.
    one("Gemm", (1, 4), (1, 5), "x w b", w=W.T.copy(), b=constant((5,))),
    one("Gemm", (3, 4), (3, 5), "x w b", w=W, b=constant((5,)), transB=1, alpha=0.3, beta=0.7),
    one("Gemm", (3, 4), (3, 5), "x w b", w=W, b=constant((3, 1)), transB=1),
    one("Gemm", (4, 3), (3, 5), "x w", w=W, transA=1, transB=1),
    one("Gemm", (4, 3), (5, 3), "w x b", w=W, b=constant((5, 3))),
    one("Gemm", (3, 4), (5, 3), "w x", w=W, transB=1, alpha=2.0),
    one("MatMul", ROWS, (1, 3, 5), "x w", w=W.T.copy()),
    one("MatMul", (2, 3, 4), (2, 3, 5), "x w", w=W.T.copy()),
    one("MatMul", ROWS, (1, 3), "x w", w=constant((4,))),
    one("MatMul", (2, 4, 3), (2, 5, 3), "w x", w=W),
    one("MatMul", (4,), (5,), "w x", w=W),
    one("Conv", (1, 2, 7), (1, 3, 3), "x k b", k=KERNEL[..., 0], b=constant((3,)), strides=[2]),
    one("Conv", IMAGE, (1, 3, 5, 4), "x k", k=KERNEL, auto_pad="SAME_UPPER"),
    one("Conv", IMAGE, (1, 3, 3, 2), "x k", k=KERNEL, auto_pad="SAME_LOWER", strides=[2, 2]),
    one("Conv", IMAGE, (1, 3, 5, 4), "x k", k=KERNEL, pads=[2, 0, 0, 1]),
    one("Conv", IMAGE, (1, 4, 3, 2), "x k", k=constant((4, 1, 2, 2)), group=2, dilations=[2, 2]),
    one("ConvTranspose", IMAGE, (1, 3, 7, 5), "x k b", k=TURNED, b=constant((3,))),
    one(
        "ConvTranspose",
        IMAGE,
        (1, 3, 10, 8),
        "x k",
        k=TURNED,
        strides=[2, 2],
        pads=[1, 0, 1, 0],
        output_padding=[1, 0],
    ),
    one("ConvTranspose", IMAGE, (1, 3, 7, 4), "x k", k=TURNED, dilations=[2, 1], pads=[1, 0, 1, 1]),
    one("ConvTranspose", IMAGE, (1, 3, 3, 1), "x k", k=TURNED, pads=[2, 2, 2, 2]),
    one(
        "ConvTranspose",
        IMAGE,
        (1, 3, 10, 8),
        "x k",
        k=TURNED,
        strides=[2, 2],
        auto_pad="SAME_UPPER",
    ),
    one("ConvTranspose", (1, 2, 5), (1, 3, 11), "x k", k=TURNED[..., 0], strides=[2]),
    one(
        "BatchNormalization",
        (1, 3, 4),
        (1, 3, 4),
        "x g b m v",
        g=constant((3,)),
        b=constant((3,)),
        m=constant((3,)),
        v=np.ones(3),
    ),
    # Sums and means.
    one("ReduceSum", (2, 3, 4), (2, 4), "x a", a=ints(1), keepdims=0),
    one("ReduceMean", (2, 3, 4), (2, 1, 1), axes=[1, -1]),
    one("ReduceMean", ROWS, (1, 1, 1)),
    one("GlobalAveragePool", IMAGE, (1, 2, 1, 1)),
    one("GlobalAveragePool", (1, 2, 5), (1, 2, 1)),
    one("AveragePool", IMAGE, (1, 2, 5, 4), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    one(
        "AveragePool",
        IMAGE,
        (1, 2, 3, 4),
        kernel_shape=[2, 2],
        pads=[1, 0, 0, 1],
        strides=[2, 1],
        count_include_pad=1,
    ),
    one("AveragePool", (1, 2, 5), (1, 2, 3), kernel_shape=[2], pads=[1, 0], strides=[2]),
    one("MaxPool", IMAGE, (1, 2, 3, 2), kernel_shape=[3, 2], pads=[1, 0, 1, 0], strides=[2, 2]),
    one("MaxPool", (1, 2, 5), (1, 2, 4), kernel_shape=[2]),
    # One value at a time.
    *(one(kind, ROWS, ROWS) for kind in ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "LeakyRelu")),
    one("LeakyRelu", ROWS, ROWS, alpha=0.3),
    one("PRelu", ROWS, ROWS, "x s", s=constant((3, 1))),
    one("HardSigmoid", ROWS, ROWS, alpha=0.3, beta=0.4),
    one("Clip", ROWS, ROWS, "x l u", l=np.float32(-0.5) * np.ones(()), u=np.ones(())),
    one("Clip", ROWS, ROWS, min=-0.2, max=0.7, opset=8),
    *(one(kind, ROWS, ROWS) for kind in ("Exp", "Sin", "Cos")),
    *(
        Form([node("Exp", "x", "e"), node(kind, inputs)], ROWS, ROWS, {"p": np.full(1, power)})
        for kind, inputs, power in (
            *(("Sqrt", "e", 0.0), ("Reciprocal", "e", 0.0)),
            *(("Pow", "e p", power) for power in (-1.0, -0.5, 0.5, 1.0, 2.0, 3.0, 4.0)),
        )
    ),
    # Of several values, which meet.
    one("Mul", ROWS, ROWS, "x x"),
    Form([node("Sigmoid", "x", "s"), node("Mul", "x s")], ROWS, ROWS),
    Form([node("Exp", "x", "e"), node("Div", "x e")], ROWS, ROWS),
    Form([node("Exp", "x", "e"), node("Div", "c e")], ROWS, ROWS, {"c": constant((4,))}),
    Form([node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t")], ROWS, (1, 3, 3)),
    Form([node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "t x")], (3, 2), (2, 2)),
    one("Softmax", ROWS, ROWS, axis=1),
    one("Softmax", (1, 4), (1, 4)),
    one("Softmax", ROWS, ROWS, axis=1, opset=11),
    one("LayerNormalization", ROWS, ROWS, "x g b", g=constant((4,)), b=constant((4,), 1), opset=17),
    one("LogSoftmax", ROWS, ROWS, axis=1),
    one("InstanceNormalization", (2, 3, 4), (2, 3, 4), "x g b", g=constant((3,)), b=constant((3,))),
    Form([node("Exp", "x", "e"), node("Pow", "e x")], ROWS, ROWS),
    one("Pow", ROWS, ROWS, "c x", c=np.full(4, 1.5)),
    *(one("Pow", ROWS, ROWS, "x p", p=np.full(1, power)) for power in (0.0, 5.0, 6.0)),
    Form([node("Exp", "x", "e"), node("Pow", "e p")], ROWS, ROWS, {"p": np.full(1, 1.7)}),
    # Comparisons, and what is decided by them.
    *(
        Form([node(kind, "x c", "t"), cast("t")], ROWS, ROWS, {"c": constant((3, 1))}, 16)
        for kind in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
    ),
    *(
        Form(
            [
                *(node("Greater", "x c", "a"), node("Less", "x d", "b")),
                *(node(kind, "a b", "t"), cast("t")),
            ],
            ROWS,
            ROWS,
            {"c": constant((4,)), "d": constant((3, 1))},
        )
        for kind in ("And", "Or", "Xor")
    ),
    Form([node("Greater", "x c", "a"), node("Not", "a", "t"), cast("t")], ROWS, ROWS, {"c": W[0]}),
    Form(
        [node("Greater", "x c", "a"), node("Or", "a m", "b"), node("And", "n b", "t"), cast("t")],
        ROWS,
        ROWS,
        {"c": W[0], "m": W[1] > 0, "n": W[2] > 0},
    ),
    Form(
        [node("Greater", "x c", "a"), node("Xor", "m a", "t"), cast("t")],
        ROWS,
        ROWS,
        {"c": W[0], "m": W[1] > 0},
    ),
    one("Mod", ROWS, ROWS, "x m", m=np.array([0.75, -0.5, 2, 1.25], np.float32), fmod=1, opset=13),
    Form(
        [
            node("Mul", "x s", "h"),
            node("Cast", "h", "i", to=TensorProto.INT64),
            node("Mod", "i m", "r"),
            cast("r"),
        ],
        ROWS,
        ROWS,
        {"s": np.full(1, 5.0), "m": ints(3, -3, 2, 7)},
    ),
    Form(
        [node("Greater", "x c", "a"), node("Neg", "x", "n"), node("Where", "a x n")],
        ROWS,
        ROWS,
        {"c": W[0]},
    ),
    Form([node("Greater", "x c", "a"), node("Where", "a x c")], ROWS, ROWS, {"c": W[0]}),
    Form([node("Where", "m x c")], ROWS, ROWS, {"m": W[0] > 0, "c": W[1]}),
    Form([node("Neg", "x", "n"), node("Where", "m n x")], ROWS, ROWS, {"m": W[0] > 0}),
    *(
        Form([node(kind, "x", "t", **attributes), cast("t")], ROWS, after)
        for kind, attributes, after in (
            ("ArgMax", {"axis": 1}, (1, 1, 4)),
            ("ArgMin", {"axis": -1, "keepdims": 0}, (1, 3)),
            ("ArgMax", {"axis": 2, "select_last_index": 1}, (1, 3, 1)),
        )
    ),
    Form(
        [
            *(node("Slice", "x zero two axis", "s"), node("ArgMax", "s", "a", axis=2, keepdims=0)),
            node("OneHot", "a d v", axis=1),
        ],
        ROWS,
        (1, 2, 3),
        {
            "d": ints(2),
            "v": np.array([-1.0, 2.0]),
            "zero": ints(0),
            "two": ints(2),
            "axis": ints(2),
        },
    ),
    Form(
        [node("Cast", "x", "i", to=TensorProto.INT32), node("Equal", "i c", "t"), cast("t")],
        ROWS,
        ROWS,
        {"c": np.zeros(1, np.int32)},
    ),
    Form(
        [
            *(node("Exp", "x", "e"), node("Cast", "e", "i", to=TensorProto.INT64)),
            *(node("Cast", "i", "j", to=TensorProto.INT32), node("Greater", "j c", "t"), cast("t")),
        ],
        ROWS,
        ROWS,
        {"c": np.ones(1, np.int32)},
    ),
    Form(
        [node("Relu", "x", "r"), node("Cast", "r", "b", to=TensorProto.BOOL), cast("b")], ROWS, ROWS
    ),
    Form(
        [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")],
        ROWS,
        ROWS,
        {"s": np.full((), 0.03), "z": np.array(100, np.uint8)},
    ),
    Form(
        [node("QuantizeLinear", "x s z", "q", axis=1), node("DequantizeLinear", "q s z", axis=1)],
        ROWS,
        ROWS,
        {"s": np.array([0.25, 0.1, 0.5]), "z": np.array([0, 3, -5], np.int8)},
    ),
    # The greatest and the least.
    *(
        one(kind, (2, 3, 4), (2, 1, 1), axes=[1, -1], opset=12)
        for kind in ("ReduceMax", "ReduceMin")
    ),
    one("ReduceMax", ROWS, (1, 3), "x a", a=ints(2), keepdims=0, opset=18),
    one("GlobalMaxPool", IMAGE, (1, 2, 1, 1)),
    one("MaxPool", IMAGE, (1, 2, 3, 2), kernel_shape=[2, 3], pads=[1, 0, 0, 1], strides=[2, 2]),
    one("MaxPool", IMAGE, (1, 2, 3, 3), kernel_shape=[2, 2], dilations=[2, 1]),
    one("MaxPool", IMAGE, (1, 2, 3, 2), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    one("MaxPool", IMAGE, (1, 2, 3, 2), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    one("MaxPool", VOLUME, (1, 2, 2, 3, 1), kernel_shape=[2, 2, 2], pads=[0, 0, 0, 0, 1, 0]),
    one(
        "AveragePool",
        IMAGE,
        (1, 2, 3, 2),
        kernel_shape=[2, 2],
        strides=[2, 2],
        ceil_mode=1,
        opset=19,
    ),
    one(
        "AveragePool",
        IMAGE,
        (1, 2, 3, 3),
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
        strides=[2, 2],
        ceil_mode=1,
        count_include_pad=1,
        opset=19,
    ),
    one("AveragePool", VOLUME, (1, 2, 2, 2, 1), kernel_shape=[2, 2, 2]),
    one("AveragePool", IMAGE, (1, 2, 3, 4), kernel_shape=[2, 1], dilations=[2, 1], opset=19),
    # Products in more dimensions, of more matrices, in groups.
    one(
        "Conv",
        VOLUME,
        (1, 2, 4, 2, 1),
        "x k b",
        k=constant((2, 2, 2, 2, 2)),
        b=constant((2,)),
        pads=[1, 0, 0, 1, 0, 0],
    ),
    one("Conv", VOLUME, (1, 4, 2, 2, 1), "x k", k=constant((4, 1, 2, 2, 2)), group=2),
    one("ConvTranspose", IMAGE, (1, 4, 7, 5), "x k", k=constant((2, 2, 3, 2)), group=2),
    one(
        "ConvTranspose",
        VOLUME,
        (1, 1, 5, 7, 3),
        "x k b",
        k=constant((2, 1, 2, 2, 2)),
        b=constant((1,)),
        strides=[2, 2, 2],
        pads=[1, 0, 0, 0, 0, 1],
        output_padding=[0, 1, 0],
    ),
    one("MatMul", (2, 3, 4), (2, 3, 5), "x w", w=constant((2, 4, 5))),
    one("MatMul", (3, 4), (2, 3, 5), "x w", w=constant((2, 4, 5))),
    one("MatMul", (2, 4, 3), (2, 5, 3), "w x", w=constant((2, 5, 4))),
    one("MatMul", (1, 2, 4, 3), (3, 2, 5, 3), "w x", w=constant((3, 1, 5, 4))),
    one("MatMul", (4,), (2, 5), "x w", w=constant((2, 4, 5))),
    one("MatMul", (4,), (2, 5), "w x", w=constant((2, 5, 4))),
    Form([node("Gemm", "x x c", transB=1, alpha=0.5, beta=2.0)], (3, 4), (3, 3), {"c": W[0, :3]}),
    Form([node("Gemm", "x x x", transB=1)], (3, 3), (3, 3)),
    # Between values.
    *(
        one(
            "Resize",
            IMAGE,
            (1, 2, 8, 6),
            "x r s",
            r=np.zeros(0, np.float32),
            s=np.array([1, 1, 1.7, 1.5], np.float32),
            mode="linear",
            coordinate_transformation_mode=mode,
        )
        for mode in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
    ),
    Form(
        [helper.make_node("Resize", ["x", "", "", "s"], ["y"], "resized", mode="linear")],
        IMAGE,
        (1, 2, 3, 7),
        {"s": ints(1, 2, 3, 7)},
    ),
    one(
        "Upsample",
        IMAGE,
        (1, 2, 10, 8),
        "x s",
        s=np.array([1, 1, 2, 2], np.float32),
        mode="linear",
        opset=9,
    ),
    one("Pad", IMAGE, (1, 2, 7, 5), "x p", p=ints(0, 0, 1, 1, 0, 0, 1, 0), mode="wrap", opset=19),
    Form(
        [helper.make_node("Pad", ["x", "p", "", "a"], ["y"], "padded")],
        IMAGE,
        (1, 2, 5, 6),
        {"p": ints(1, 1), "a": ints(3)},
        18,
    ),
    one("Pad", IMAGE, (1, 2, 4, 5), "x p", p=ints(0, 0, -1, 1, 0, 0, 0, 0)),
    # Functions of one variable, beyond those above.
    *(
        one(kind, ROWS, ROWS, opset=opset)
        for kind, opset in (
            *(("Ceil", 13), ("Elu", 13), ("Erf", 13), ("Floor", 13), ("Gelu", 20), ("Mish", 18)),
            *(("HardSwish", 14), ("Round", 13), ("Selu", 13), ("Sign", 13), ("Softplus", 13)),
            *(("Softsign", 13), ("ThresholdedRelu", 13), ("Celu", 13)),
        )
    ),
    one("Celu", ROWS, ROWS, alpha=0.4),
    one("Elu", ROWS, ROWS, alpha=1.7),
    one("Gelu", ROWS, ROWS, approximate="tanh", opset=20),
    one("Selu", ROWS, ROWS, alpha=1.2, gamma=0.8),
    one("ThresholdedRelu", ROWS, ROWS, alpha=0.3),
    Form([node("Exp", "x", "e"), node("Log", "e")], ROWS, ROWS),
    # Of several values, which broadcast.
    one("Add", ROWS, (1, 2, 3, 4), "x c", c=constant((1, 2, 1, 4))),
    Form([node("Flatten", "x", "f"), node("Sub", "x f")], (1, 1, 3), (1, 1, 3)),
    one("Sub", ROWS, ROWS, "c x", c=constant((3, 1))),
    one("Mul", ROWS, ROWS, "c x", c=constant((4,))),
    one("Div", ROWS, (2, 3, 4), "x c", c=constant((2, 1, 1))),
    *(
        Form(
            [node("Transpose", "x", "t", perm=[0, 2, 1]), node(kind, "x t c")],
            (1, 3, 3),
            (1, 3, 3),
            {"c": constant((3,))},
        )
        for kind in ("Sum", "Mean", "Max", "Min")
    ),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_it_computes_what_onnx_runtime_does(form: Form, tmp_path: Path) -> None:
    path = save(tmp_path, form.nodes, form.before, form.after, form.opset, **form.constants)
    prepare(path, tmp_path / "prepared")  # replays


def representatives() -> list[Any]:
    """All forms, of which only --exhaustive tries those without an operator that is new."""
    seen: set[str] = set()
    chosen: list[Any] = []
    for form in FORMS:
        kinds = {each.op_type for each in form.nodes}
        chosen += rest(form) if kinds <= seen else [form]
        seen |= kinds
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("form", representatives(), ids=str)
def test_its_bounds_hold(form: Form, tmp_path: Path) -> None:
    path = save(tmp_path, form.nodes, form.before, form.after, form.opset, **form.constants)
    loaded = load_graph(path)
    network = SmallNetwork(loaded.graph, loaded.tensors)
    for radius in (0.3, 0.0, 100.0):
        assert_sound(network, box_of(network, radius, batch=2), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("form", representatives(), ids=str)
def test_it_stands_between_layers(form: Form, tmp_path: Path) -> None:
    """So that coefficients which were never one-hot pass it backward."""
    size = int(np.prod(form.before))
    into = [
        node("Gemm", "x0 w0 b0", "h0", transB=1),
        node("Relu", "h0", "r0"),
        node("Reshape", "r0 s0", "x1"),
    ]
    moved = [onnx.NodeProto.FromString(one.SerializeToString()) for one in form.nodes]
    for each in moved:
        for names in (each.input, each.output):
            names[:] = [{"x": "x1", "y": "y1"}.get(name, name) for name in names]
    out = [node("Reshape", "y1 s1", "f1"), node("Relu", "f1", "q1"), node("Gemm", "q1 w1 b1")]
    model = [*into, *moved, *out]
    for number, each in enumerate(model):
        each.name = f"node{number}"
        each.input[:] = [{"x0": "x"}.get(name, name) for name in each.input]
    constants = {
        "w0": constant((size, 3), 5),
        "b0": constant((size,), 7),
        "b1": constant((2,), 8),
        "s0": ints(*form.before),
        "s1": ints(1, int(np.prod(form.after))),
        "w1": constant((int(np.prod(form.after)), 2), 6) / 3,
    }
    opset = max(form.opset, 7)
    path = save(tmp_path, model, (1, 3), (1, 2), opset, **form.constants, **constants)
    prepare(path, tmp_path / "prepared")
    loaded = load_graph(path)
    network = SmallNetwork(loaded.graph, loaded.tensors)
    assert_sound(network, box_of(network, 0.4, batch=2), torch.float32)


def test_every_operator_has_a_form_here() -> None:
    assert {each.op_type for form in FORMS for each in form.nodes} == TRANSLATIONS.keys()


def test_what_moves_values_is_one_operator_of_the_bound_graph(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Transpose", "x", perm=[0, 2, 1])], ROWS, (1, 4, 3))
    (moved,) = load_graph(path).graph.nodes[1:]
    assert (moved.op, moved.name.partition("_")[0]) == (Op.SELECT, "select")


def test_values_that_keep_their_order_are_not_moved(tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", "t", perm=[0, 2, 1]), node("Relu", "t")]
    path = save(tmp_path, nodes, (1, 1, 4), (1, 4, 1))
    assert Op.SELECT not in {each.op for each in load_graph(path).graph.nodes}
