"""Forms of operators on one value at a time, on a few that meet, and on what is decided by them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto
from onnx_forms import ROWS, Form, W, cast, ints, one
from onnx_models import constant, node

OF_VALUES = [
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
