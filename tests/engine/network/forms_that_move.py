"""Forms of operators that move values, or take what lies between them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from onnx_forms import IMAGE, ROWS, Form, ints, one
from onnx_models import constant, node

ONE = constant((1,))

MOVING = [
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
]
