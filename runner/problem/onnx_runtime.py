"""The original ONNX file under ONNX Runtime: the reference for replays and counterexamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.files import read_bytes

_DTYPES: dict[str, type[np.floating]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_FATAL_ONLY = 4
_NO_PREPACKING = "session.disable_prepacking"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
# ONNX Runtime's errors have no common base of their own.
RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        kind
        for kind in vars(onnxruntime_pybind11_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)


def session_of(
    content: bytes,
    folder: Path | None = None,
    weights: Mapping[str, onnxruntime.OrtValue] | None = None,
    *,
    optimize: bool = True,
) -> onnxruntime.InferenceSession:
    """Of a model on one thread, in silence; `folder`: of its external weights. `weights`: of those
    the ones that are in memory, as long as the session lives.

    Raises what is in RUNTIME_ERRORS.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    if not optimize:  # nor keep weights twice
        options.add_session_config_entry(_NO_PREPACKING, "1")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, value in (weights or {}).items():
        options.add_initializer(name, value)
    if folder is not None:
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _session(
    path: Path,
    content: bytes | None,
    weights: Mapping[str, onnxruntime.OrtValue],
    *,
    optimize: bool,
) -> onnxruntime.InferenceSession:
    if content is None:
        content = read_bytes(path, Cause.MALFORMED_NETWORK)
    # Weights that are said to lie in the file itself must lie where a link to it leads.
    folder = path.resolve().parent if weights else path.parent
    try:
        return session_of(content, folder, weights, optimize=optimize)
    except RUNTIME_ERRORS as error:
        # E.g. a Conv of float64, which no kernel computes.
        lacking = isinstance(error, onnxruntime_pybind11_state.NotImplemented)
        cause = Cause.UNSUPPORTED_OPERATOR if lacking else Cause.MALFORMED_NETWORK
        remedy = "; convert the network to float32" if lacking else ""
        raise InstanceError(
            cause, f"{path}: ONNX Runtime cannot load it: {error}{remedy}"
        ) from error


class OnnxRuntime:
    """One thread; a dynamic dimension counts as 1. Several inputs, or outputs, are flat behind each
    other, in the order of the file.

    `optimize`: join operators, as ONNX Runtime does by default, with weights that it rounds anew.

    `content`: of the file, where it is read; `weights`: what is in memory of those that the content
    says lie in the file.

    `inputs`, `outputs`: their names. `input_shape`: the model's own, batch dimension included, of
    several the number of their values; `dtype`: of its inputs; `output_type`: that of its first
    output in words, such as `float32`. Raises InstanceError with MISSING_FILE, MALFORMED_NETWORK
    (the file is not a model that ONNX Runtime can load), UNSUPPORTED_INSTANCE (inputs of several
    types) or UNSUPPORTED_OPERATOR (an input that is not floating-point, an operator that ONNX
    Runtime cannot compute in the network's type).
    """

    def __init__(
        self,
        path: Path,
        *,
        optimize: bool = True,
        content: bytes | None = None,
        weights: Mapping[str, NDArray[np.floating]] | None = None,
    ) -> None:
        self.path = path
        # ONNX Runtime reads these where they lie, and does not keep them alive.
        self._weights = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
            for name, value in (weights or {}).items()
        }
        self._session = _session(path, content, self._weights, optimize=optimize)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        for value in inputs:
            if value.type not in _DTYPES:
                raise InstanceError(
                    Cause.UNSUPPORTED_OPERATOR,
                    f"{path}: input {value.name!r} is {value.type}, not floating-point",
                )
        types = {value.type for value in inputs}
        if len(types) != 1:
            raise InstanceError(
                Cause.UNSUPPORTED_INSTANCE,
                f"{path}: {len(inputs)} inputs of {len(types)} types; export it with inputs of one",
            )
        self.inputs = tuple(value.name for value in inputs)
        self.outputs = tuple(value.name for value in outputs)
        self.dtype = _DTYPES[types.pop()]
        output = _DTYPES.get(outputs[0].type)
        self.output_type: str = outputs[0].type if output is None else output.__name__
        self._shapes = [_shape(value.shape) for value in inputs]
        self._ends = np.cumsum([prod(shape) for shape in self._shapes]).tolist()
        self.input_shape = self._shapes[0] if len(inputs) == 1 else (self._ends[-1],)

    def run(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """Flat input to flat output, both of one sample.

        Raises InstanceError SHAPE_MISMATCH if `x` has not as many values as the network's input.
        """
        if x.size != self._ends[-1]:
            raise InstanceError(
                Cause.SHAPE_MISMATCH,
                f"{self.path}: {x.size} values given, the input has shape {self.input_shape}",
            )
        flat = [np.asarray(output).reshape(-1) for output in self._run(x)]
        return flat[0] if len(flat) == 1 else np.concatenate(flat)

    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """How many values each input and each output has, in the order of the file."""
        outputs = self._run(np.zeros(self._ends[-1]))
        return tuple(map(prod, self._shapes)), tuple(np.size(output) for output in outputs)

    def _run(self, x: NDArray[np.floating]) -> Sequence[NDArray[Any]]:
        parts = np.split(np.asarray(x, dtype=self.dtype).reshape(-1), self._ends[:-1])
        given = {
            name: part.reshape(shape)
            for name, part, shape in zip(self.inputs, parts, self._shapes, strict=True)
        }
        try:
            outputs: Sequence[NDArray[Any]] = self._session.run(None, given)
        except RUNTIME_ERRORS as error:
            raise InstanceError(
                Cause.MALFORMED_NETWORK, f"{self.path}: ONNX Runtime cannot run it: {error}"
            ) from error
        return outputs


def _shape(lengths: Sequence[int | str | None]) -> tuple[int, ...]:
    return tuple(length if isinstance(length, int) and length > 0 else 1 for length in lengths)
