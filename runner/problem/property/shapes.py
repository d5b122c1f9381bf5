"""Whether the indices of a property mean the values of a network that they seem to mean."""

from __future__ import annotations

from pathlib import Path

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.model import Property

Shape = tuple[int, ...]


def check_shapes(
    instance: Property, source: str, network: Path, input_shape: Shape, output_shape: Shape
) -> None:
    """Raises InstanceError SHAPE_MISMATCH where a declared shape orders its values in another way
    than the network's, which is of as many values and given with or without its batch dimension.
    """
    for side, declared, actual in (
        ("input", instance.input_shape, input_shape),
        ("output", instance.output_shape, output_shape),
    ):
        if declared is not None and not _same_order(declared, actual):
            whole = (1,) * (len(declared) - len(actual)) + actual
            raise InstanceError(
                Cause.SHAPE_MISMATCH,
                f"{source}: declares the {side} as {list(declared)}, {network} has {list(whole)}, "
                "so each index would mean another value; declare the network's own shape",
            )


def check_tensors(instance: Property, source: str, runtime: OnnxRuntime) -> None:
    """Raises InstanceError SHAPE_MISMATCH where inputs, or outputs, that are declared are not those
    of the network, one by one and in its order.
    """
    sizes = runtime.sizes()
    for side, declared, names, lengths in (
        ("inputs", instance.input_tensors, runtime.inputs, sizes[0]),
        ("outputs", instance.output_tensors, runtime.outputs, sizes[1]),
    ):
        if not declared:
            continue
        unlike = len(declared) != len(names) or any(
            tensor.name not in ("", name) or tensor.size != length
            for tensor, name, length in zip(declared, names, lengths, strict=False)
        )
        if unlike:
            has = ", ".join(f"{n!r} of {k}" for n, k in zip(names, lengths, strict=True))
            raise InstanceError(
                Cause.SHAPE_MISMATCH,
                f"{source}: declares {len(declared)} {side} that are not those of {runtime.path}, "
                f"which are {has}; declare them so, in this order",
            )


def _same_order(declared: Shape, actual: Shape) -> bool:
    """Dimensions of length 1 count for nothing, and a vector is any tensor, row by row."""
    one, other = (tuple(length for length in shape if length != 1) for shape in (declared, actual))
    return one == other or len(one) <= 1 or len(other) <= 1
