"""Declared shapes that order values in another way than the network are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.property.model import Property
from runner.problem.property.shapes import check_shapes

NETWORK = Path("net.onnx")


@pytest.mark.parametrize(
    ("declared", "actual"),
    [
        (None, (2, 3)),
        ((1, 2, 3), (2, 3)),
        ((2, 3), (1, 2, 3)),
        ((2, 1, 3, 1), (2, 3)),
        ((6,), (2, 3)),
        ((1, 6), (1, 2, 3)),
        ((2, 3), (6,)),
        ((), (1,)),
    ],
)
def test_a_shape_of_the_same_order_fits(
    declared: tuple[int, ...] | None, actual: tuple[int, ...]
) -> None:
    one = Property(6, 6, (), input_shape=declared, output_shape=declared)
    check_shapes(one, "p.vnnlib", NETWORK, actual, actual)


@pytest.mark.parametrize(("side", "name"), [(0, "input"), (1, "output")])
def test_another_order_is_refused_with_both_shapes(side: int, name: str) -> None:
    shapes = [(1, 2, 3), (1, 2, 3)]
    shapes[side] = (1, 3, 2)
    one = Property(6, 6, (), input_shape=shapes[0], output_shape=shapes[1])
    with pytest.raises(InstanceError) as raised:
        check_shapes(one, "p.vnnlib", NETWORK, (2, 3), (2, 3))
    assert raised.value.cause is Cause.SHAPE_MISMATCH
    assert str(raised.value) == (
        f"p.vnnlib: declares the {name} as [1, 3, 2], net.onnx has [1, 2, 3], so each index would "
        "mean another value; declare the network's own shape"
    )
