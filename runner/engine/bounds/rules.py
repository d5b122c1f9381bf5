"""The rules of plain operators: of linear ones, and of ReLU.

What each of their methods takes and gives, `rule_kinds` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.engine.bounds.affine import (
    AffineMap,
    ConvMap,
    LinearMap,
    all_whole,
)
from runner.engine.bounds.affine_passes import (
    affine_backward,
    affine_forward,
    affine_interval,
    narrow_backward,
)
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.relu import ReluRelaxation
from runner.engine.bounds.rounding import (
    enclosed_between,
    floor,
    grown,
    lost,
    outwards,
    rounded,
    summands,
    summed,
    sums_in,
)
from runner.engine.bounds.weights import Weights
from runner.engine.network.graph import Node


class AffineRule:
    """Linear and Conv."""

    def __init__(self, affine: AffineMap) -> None:
        self.affine = affine

    @property
    def convolution(self) -> ConvMap | None:
        return self.affine if isinstance(self.affine, ConvMap) else None

    def terms(self, dtype: torch.dtype) -> int:
        return self.affine.terms.of_pass(dtype)

    def forward(self, *inputs: Tensor) -> Tensor:
        return affine_forward(self.affine, inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        return affine_interval(self.affine, inputs[0])

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        product, constant = affine_backward(self.affine, rows)
        return [product], constant

    def backward_at(self, rows: Tensor, outputs: Tensor) -> tuple[list[Tensor], Tensor | None]:
        if not isinstance(self.affine, LinearMap):
            return self.backward(rows)
        product, constant = narrow_backward(self.affine, rows, outputs)
        return [product], constant

    @property
    def summands(self) -> int:
        return self.affine.terms.forward

    @cached_property
    def whole(self) -> bool:
        return self.affine.whole and all_whole(self.affine.bias(torch.float64))

    def directions(self, *inputs: Tensor) -> Tensor:
        return self.affine.apply(inputs[0])

    def spread(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], columns: int) -> Tensor:
        # One product for both: |W| (e + γ s), and γ |b|.
        off = lost(errors[0], sizes[0], self.summands)
        bias = self.affine.bias(off.dtype).abs()
        total = torch.add(self.affine.magnitude(off), bias, alpha=rounded(self.summands, bias))
        return grown(total, self.summands, columns + 2)

    def start(self, neurons: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        rows = self.affine.start_rows(neurons, dtype)
        bias = self.affine.bias(dtype).expand(self.affine.node.shape).reshape(-1)[neurons]
        return rows, bias, None


class ReluRule:
    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].relu()

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(inputs[0].lower.relu(), inputs[0].upper.relu())

    def relax(self, before: Interval) -> ReluRelaxation:
        return ReluRelaxation(before)


class Moving:
    """Nothing is summed backward; where ways meet, the pass charges that. Forward, values move."""

    summands = 1
    whole = True

    def terms(self, dtype: torch.dtype) -> int:
        return 0

    def forward(self, *inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def directions(self, *inputs: Tensor) -> Tensor:
        return self.forward(*inputs)

    def spread(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], columns: int) -> Tensor:
        return self.forward(*errors)


class AddRule(Moving):
    """x + y, or x - y with `sign` -1."""

    def __init__(self, sign: int) -> None:
        self._sign = sign

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] + self._sign * inputs[1]

    def interval(self, *inputs: Interval) -> Interval:
        x, y = inputs
        if self._sign > 0:
            return Interval(*outwards(x.lower + y.lower, x.upper + y.upper))
        return Interval(*outwards(x.lower - y.upper, x.upper - y.lower))

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        return [rows, rows if self._sign > 0 else -rows], None

    def spread(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], columns: int) -> Tensor:
        parts = [lost(off, size, 1) for off, size in zip(errors, sizes, strict=True)]
        return grown(parts[0] + parts[1], 1, 1)


class ElementwiseAffineRule:
    """scale * x + shift: BatchNorm and arithmetic with constants."""

    def __init__(self, node: Node, weights: Weights) -> None:
        self._node = node
        self._weights = weights
        self._known: dict[tuple[str, torch.dtype], Tensor] = {}

    def terms(self, dtype: torch.dtype) -> int:
        return 1 + summands(self._node.size, dtype)

    def _parameter(self, name: str, dtype: torch.dtype) -> Tensor:
        if (name, dtype) not in self._known:
            value = self._weights.tensor(self._node.parameters[name]).to(dtype)
            self._known[name, dtype] = value.expand(self._node.shape)
        return self._known[name, dtype]

    def forward(self, *inputs: Tensor) -> Tensor:
        dtype = inputs[0].dtype
        return inputs[0] * self._parameter("scale", dtype) + self._parameter("shift", dtype)

    def interval(self, *inputs: Interval) -> Interval:
        one, other = self.forward(inputs[0].lower), self.forward(inputs[0].upper)
        size, dtype = inputs[0].size, one.dtype
        sums = self._parameter("scale", dtype).abs() * size + self._parameter("shift", dtype).abs()
        off = None
        if "scale_error" in self._node.parameters:
            off = self._parameter("scale_error", dtype) * size
        if "shift_error" in self._node.parameters:
            shift = self._parameter("shift_error", dtype).expand_as(size)
            off = shift if off is None else off + shift
        lower, upper = torch.minimum(one, other), torch.maximum(one, other)
        return Interval(
            *enclosed_between(lower, upper, sums_in(sums, off, dtype, 3), 3),
            sums.flatten(1),
            floor(size, self.terms(dtype)),
            None if off is None else off.flatten(1),
        )

    @cached_property
    def _moves(self) -> tuple[bool, bool]:
        """Whether it scales anything, and whether it shifts anything."""
        scale, shift = (self._weights.tensor(self._node.parameters[r]) for r in ("scale", "shift"))
        return bool((scale != 1).any()), bool((shift != 0).any())

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        scales, shifts = self._moves
        constant = None
        if shifts:
            constant = summed((rows * self._parameter("shift", rows.dtype)).flatten(2))
        return [rows * self._parameter("scale", rows.dtype) if scales else rows], constant

    @property
    def summands(self) -> int:
        return 2

    @cached_property
    def whole(self) -> bool:
        dtype, errors = torch.float64, ("scale_error", "shift_error")
        off = (self._parameter(e, dtype) for e in errors if e in self._node.parameters)
        if any(bool((error != 0).any()) for error in off):
            return False
        return all(all_whole(self._parameter(role, dtype)) for role in ("scale", "shift"))

    def directions(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * self._parameter("scale", inputs[0].dtype)

    def spread(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], columns: int) -> Tensor:
        off, dtype = lost(errors[0], sizes[0], 3), errors[0].dtype
        shift = self._parameter("shift", dtype).abs()
        total = self._parameter("scale", dtype).abs() * off + shift * rounded(3, shift)
        # What is computed and not the file's own comes with a bound of its error, in float64.
        if "scale_error" in self._node.parameters:
            total = total + self._parameter("scale_error", dtype) * (sizes[0] + errors[0])
        if "shift_error" in self._node.parameters:
            total = total + self._parameter("shift_error", dtype)
        return grown(total, 6, columns + 2)


class ReshapeRule(Moving):
    def __init__(self, input_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self._input_shape = input_shape
        self._shape = shape

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reshape(-1, *self._shape)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(self.forward(inputs[0].lower), self.forward(inputs[0].upper))

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        return [rows.reshape(*rows.shape[:2], *self._input_shape)], None


class ConcatRule(Moving):
    def __init__(self, axis: int, lengths: list[int]) -> None:
        self._axis = axis
        self._lengths = lengths

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self._axis + 1)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(
            self.forward(*(x.lower for x in inputs)), self.forward(*(x.upper for x in inputs))
        )

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        return list(rows.split(self._lengths, self._axis + 2)), None


class AveragePoolRule:
    """The mean over windows; padding counts as zeros."""

    whole = False

    def __init__(self, node: Node, input_shape: tuple[int, ...]) -> None:
        self._kernel: tuple[int, int] = node.attributes["kernel"]  # type: ignore[assignment]
        self._stride: tuple[int, int] = node.attributes["stride"]  # type: ignore[assignment]
        self._padding: tuple[int, int] = node.attributes["padding"]  # type: ignore[assignment]
        self._shape = node.shape
        self._input_shape = input_shape

    @property
    def _window_terms(self) -> int:
        return self._kernel[0] * self._kernel[1] + 2

    def terms(self, dtype: torch.dtype) -> int:
        return self._window_terms

    @property
    def summands(self) -> int:
        return self._window_terms

    def directions(self, *inputs: Tensor) -> Tensor:
        return self.forward(*inputs)

    def spread(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], columns: int) -> Tensor:
        terms = self._window_terms
        return grown(self.forward(lost(errors[0], sizes[0], terms)), terms, columns + 2)

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.avg_pool2d(inputs[0], self._kernel, self._stride, self._padding)

    def interval(self, *inputs: Interval) -> Interval:
        size = inputs[0].size
        sums = self.forward(size)
        lower, upper = self.forward(inputs[0].lower), self.forward(inputs[0].upper)
        return Interval(
            *enclosed_between(lower, upper, sums, self._window_terms),
            sums.flatten(1),
            floor(size, self._window_terms),
        )

    def backward(self, rows: Tensor) -> tuple[list[Tensor], Tensor | None]:
        channels, window = self._shape[0], self._kernel[0] * self._kernel[1]
        kernel = rows.new_full((channels, 1, *self._kernel), 1 / window)
        extra = [
            self._input_shape[1 + axis]
            + 2 * self._padding[axis]
            - (self._shape[1 + axis] - 1) * self._stride[axis]
            - self._kernel[axis]
            for axis in (0, 1)
        ]
        flat = F.conv_transpose2d(
            rows.flatten(0, 1), kernel, None, self._stride, self._padding, extra, channels
        )
        return [flat.reshape(*rows.shape[:2], *self._input_shape)], None
