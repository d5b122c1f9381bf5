"""The loaded network is held against ONNX Runtime on the original file, each output by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.errors import InstanceError
from runner.network.graph import Graph
from runner.network.rounding import with_deviation
from runner.network.runtime import OnnxRuntime
from runner.property.model import Property
from runner.vocabulary import Cause

_SAMPLES = 4  # of each distribution
_CASES = 4  # of a property, spread over all
_MOST_VALUES = 1 << 24  # of the largest node, computed at a time

# ONNX Runtime's roundings stay within a few deviations; a wrong weight stands out by more.
_DEVIATIONS = 30.0
# A float16 network is computed in float32 where ONNX Runtime's own rounding changes so little.
HALF_TOLERANCE = 0.01


def box_points(instance: Property) -> list[NDArray[np.float64]]:
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


class Replay:
    """ONNX Runtime's outputs at random inputs and at `points` (flat), and what rounding explains.

    The tolerance of an output is 30 standard deviations of what rounding does to it, in the
    network's own type, at that very input. Raises InstanceError REPLAY_MISMATCH where the outputs
    are no finite numbers.
    """

    def __init__(
        self,
        reference: OnnxRuntime,
        graph: Graph,
        tensors: Mapping[str, Tensor],
        points: Sequence[NDArray[np.floating]] = (),
    ) -> None:
        self._path = reference.path
        self._input_shape = graph.input.shape
        samples = _samples(graph.input.size, points, reference.dtype)
        self._expected = np.stack([reference.run(sample) for sample in samples]).astype(np.float64)
        finite = np.isfinite(self._expected)
        if not finite.all():
            _, output = np.argwhere(~finite)[0]
            raise InstanceError(
                Cause.REPLAY_MISMATCH,
                f"{self._path}: ONNX Runtime computes no finite number for output {output}: values "
                f"overflow {reference.dtype.__name__}; scale the network's weights",
            )
        self._inputs = torch.from_numpy(samples.astype(np.float64)).reshape(-1, *graph.input.shape)
        at_once = max(1, _MOST_VALUES // max(node.size for node in graph.nodes))
        limits = np.finfo(reference.dtype)
        self._half = reference.dtype == np.float16
        with torch.no_grad():
            parts = [
                with_deviation(graph, tensors, part, float(limits.eps) / 2)
                for part in self._inputs.split(at_once)
            ]
        self._outputs, deviation = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        self._tolerance = _DEVIATIONS * deviation + float(limits.smallest_normal)

    def check_graph(self) -> None:
        """Raises InstanceError REPLAY_MISMATCH unless the bound graph is the file's network.

        And UNSUPPORTED_INSTANCE for a float16 network that rounding changes too much.
        """
        self._compare(self._outputs, "in float64")
        if self._half:
            self._check_half()

    def check(self, forward: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        """The same of a module, [B, *input_shape] to [B, ...], one by one and as a batch."""
        inputs = self._inputs.to(dtype)
        for name, parts in (("one by one", inputs.split(1)), ("in a batch", (inputs,))):
            with torch.no_grad():
                outputs = torch.cat([forward(part).reshape(len(part), -1) for part in parts])
            self._compare(outputs.double().numpy(), name)

    def _compare(self, outputs: NDArray[np.float64], name: str) -> None:
        if outputs.shape != self._expected.shape:
            raise InstanceError(
                Cause.REPLAY_MISMATCH,
                f"{self._path}: the loaded network has {outputs.shape[1]} outputs, under ONNX "
                f"Runtime it has {self._expected.shape[1]}; please report it",
            )
        difference = np.abs(outputs - self._expected)
        wrong = ~(difference <= self._tolerance)  # what is not a number is wrong too
        if wrong.any():
            sample, output = np.argwhere(wrong)[0]
            raise InstanceError(
                Cause.REPLAY_MISMATCH,
                f"{self._path}: the loaded network ({name}) differs from ONNX Runtime by "
                f"{difference[sample, output]:.3g} in output {output}, which is "
                f"{self._expected[sample, output]:.6g}; rounding explains "
                f"{self._tolerance[sample, output]:.3g}. Its bounds would not be those of the "
                "file; please report it",
            )

    def _check_half(self) -> None:
        """Against the largest value that each output takes."""
        difference = np.abs(self._outputs - self._expected)
        share = difference / np.maximum(np.abs(self._expected).max(axis=0), self._tolerance / 1e9)
        if share.max() > HALF_TOLERANCE:
            _, output = np.unravel_index(share.argmax(), share.shape)
            raise InstanceError(
                Cause.UNSUPPORTED_INSTANCE,
                f"{self._path}: a float16 network, whose output {output} ONNX Runtime rounds by "
                f"{share.max():.1%}; networks are computed in float32, which is done for float16 "
                f"up to {HALF_TOLERANCE:.0%}; convert it to float32",
            )


def _samples(
    inputs: int, points: Sequence[NDArray[np.floating]], dtype: type[np.floating]
) -> NDArray[np.floating]:
    """Distinct ways of being wrong show at small inputs, at positive ones and in the box."""
    generator = np.random.default_rng(0)
    rows = np.concatenate(
        (
            generator.standard_normal((_SAMPLES, inputs)),
            generator.uniform(size=(_SAMPLES, inputs)),
            *(np.reshape(point, (1, inputs)) for point in points),
        )
    )
    with np.errstate(over="ignore"):
        samples: NDArray[np.floating] = rows.astype(dtype)
    return samples[np.isfinite(samples).all(axis=1)]
