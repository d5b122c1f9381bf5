"""The loaded network is held against ONNX Runtime on the original file, each output by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.engine.network.deviation import with_deviation
from runner.engine.network.graph import Graph, Node, Op
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.model import Property

Values = NDArray[np.float64]

_SAMPLES = 4  # of each distribution
_CASES = 4  # of a property, spread over all
_VALUES_AT_ONCE = 1 << 18  # of the node that takes most room; weights are widened each time

# ONNX Runtime stays within one on every network of VNN-COMP that could be tried.
_DEVIATIONS = 16.0
# A float16 network is computed in float32 where ONNX Runtime's own rounding changes so little.
HALF_TOLERANCE = 0.01


def box_points(instance: Property) -> list[Values]:
    """Points of a property's boxes: the centre, both extreme corners, another corner, another."""
    generator = np.random.default_rng(0)
    step = max(1, len(instance.cases) // _CASES)
    points = []
    for case in instance.cases[::step][:_CASES]:
        low, high = case.lower, case.upper
        inside = generator.uniform(size=low.shape)
        for shares in (0.5, 0.0, 1.0, inside.round(), inside):
            points.append((1 - shares) * low + shares * high)
    return points


def replay(
    reference: OnnxRuntime,
    graph: Graph,
    tensors: Mapping[str, Tensor],
    points: Sequence[NDArray[np.floating]] = (),
) -> float:
    """Compares the bound graph with ONNX Runtime at random inputs and at `points` (flat).

    The graph is computed in float64. The tolerance of an output is 16 standard deviations of what
    rounding in the file's own type does to it, at that very input. Gives the greatest difference,
    as a share of the greatest value that the output takes.

    Raises InstanceError REPLAY_MISMATCH, and UNSUPPORTED_INSTANCE for a float16 network that
    rounding changes too much.
    """
    samples = _samples(graph.input.size, points, reference.dtype)
    expected = np.stack([reference.run(sample) for sample in samples]).astype(np.float64)
    _check_finite(expected, reference)
    limits = np.finfo(np.float32 if graph.lowest else reference.dtype)
    inputs = torch.from_numpy(samples.astype(np.float64)).reshape(-1, *graph.input.shape)
    at_once = max(1, _VALUES_AT_ONCE // max(_room(node, tensors) for node in graph.nodes))
    with torch.no_grad():
        parts = [
            with_deviation(graph, tensors, part, float(limits.eps) / 2)
            for part in inputs.split(at_once)
        ]
    outputs, deviation = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    _compare(outputs, expected, _DEVIATIONS * deviation + float(limits.smallest_normal), reference)
    shares = _shares(outputs, expected, float(limits.smallest_subnormal))
    if reference.dtype == np.float16:
        _check_half(shares, reference)
    return float(shares.max())


def _room(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """Values that are held for a sample; a convolution unfolds its input."""
    if node.op is not Op.CONV:
        return node.size
    per_output = tensors[node.parameters["weight"]][0].numel()
    return node.size * per_output // node.shape[0]


def _samples(
    inputs: int, points: Sequence[NDArray[np.floating]], dtype: type[np.floating]
) -> NDArray[np.floating]:
    """What is wrong may show at small inputs only, at positive ones, or in the box."""
    generator = np.random.default_rng(0)
    rows = np.concatenate(
        (
            generator.standard_normal((_SAMPLES, inputs)),
            generator.uniform(size=(_SAMPLES, inputs)),
            *(np.reshape(point, (1, inputs)) for point in points),
        )
    )
    with np.errstate(over="ignore"):
        samples = rows.astype(dtype)
    finite: NDArray[np.floating] = samples[np.isfinite(samples).all(axis=1)]
    return finite


def _check_finite(expected: Values, reference: OnnxRuntime) -> None:
    if not np.isfinite(expected).all():
        _, output = np.argwhere(~np.isfinite(expected))[0]
        raise InstanceError(
            Cause.REPLAY_MISMATCH,
            f"{reference.path}: ONNX Runtime computes no finite number for output {output}: values "
            f"overflow {reference.dtype.__name__}; scale the network's weights",
        )


def _compare(outputs: Values, expected: Values, tolerance: Values, reference: OnnxRuntime) -> None:
    if outputs.shape != expected.shape:
        raise InstanceError(
            Cause.REPLAY_MISMATCH,
            f"{reference.path}: the loaded network has {outputs.shape[1]} outputs, under ONNX "
            f"Runtime it has {expected.shape[1]}; please report it",
        )
    difference = np.abs(outputs - expected)
    wrong = np.argwhere(~(difference <= tolerance))  # what is not a number is wrong too
    if len(wrong):
        at = tuple(wrong[0])
        raise InstanceError(
            Cause.REPLAY_MISMATCH,
            f"{reference.path}: the loaded network differs from ONNX Runtime by "
            f"{difference[at]:.3g} in output {at[1]}, which is {expected[at]:.6g}; rounding "
            f"explains {tolerance[at]:.3g}. Its bounds would not be those of the file; "
            "please report it",
        )


def _shares(outputs: Values, expected: Values, least: float) -> Values:
    """The greatest difference of each output, by the greatest value that it takes."""
    scale = np.maximum(np.abs(expected).max(axis=0), least)
    shares: Values = (np.abs(outputs - expected) / scale).max(axis=0)
    return shares


def _check_half(shares: Values, reference: OnnxRuntime) -> None:
    if shares.max() > HALF_TOLERANCE:
        raise InstanceError(
            Cause.UNSUPPORTED_INSTANCE,
            f"{reference.path}: a float16 network, whose output {shares.argmax()} ONNX Runtime "
            f"rounds by {shares.max():.1%}; float16 is computed in float32 where that makes up to "
            f"{HALF_TOLERANCE:.0%}; convert the network to float32",
        )
