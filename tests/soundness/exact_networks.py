"""ReLU networks in rational arithmetic: values, and the exact maximum along one input.

Nothing here knows the project's own graph, so that it can be held against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Exact = NDArray[np.object_]


@dataclass(frozen=True)
class Layer:
    """`kind`: gemm, conv (kernel 2 x 2), relu, maxpool and avgpool (2 x 2), flatten, or residual:
    x + inner(x). Weights are of the network's own type.
    """

    kind: str
    weight: Floats | None = None
    bias: Floats | None = None
    inner: tuple[Layer, ...] = field(default=())


@dataclass(frozen=True)
class Network:
    """One input of `shape` (without a batch dimension), one output row; `dtype` of everything."""

    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    dtype: type[np.floating]


def fractions(values: Any) -> Exact:
    """Each float as the fraction that it is."""
    array = np.asarray(values, dtype=np.float64)
    flat = [Fraction(value) for value in array.reshape(-1).tolist()]
    return np.array(flat, dtype=object).reshape(array.shape)


def value(network: Network, x: Exact) -> Exact:
    """Exact outputs at one point."""
    nothing = np.zeros_like(x)
    constant, _ = _forms(network.layers, (x, nothing), lambda form: None)
    return constant.reshape(-1)


def greatest(network: Network, x: Exact, axis: int, upper: Fraction, row: Exact) -> Fraction:
    """The greatest row @ outputs on the way from x to where its input `axis` is `upper`."""
    direction = np.zeros_like(x)
    direction.reshape(-1)[axis] = upper - x.reshape(-1)[axis]
    best: Fraction | None = None
    waiting = [(Fraction(0), Fraction(1))]
    while waiting:
        start, stop = waiting.pop()
        cuts = _Cuts(start, stop)
        constant, slope = _forms(network.layers, (x, direction), cuts)
        if cuts.at is not None:
            waiting += [(start, cuts.at), (cuts.at, stop)]
            continue
        c, s = row @ constant.reshape(-1), row @ slope.reshape(-1)
        top = max(c + s * start, c + s * stop)
        best = top if best is None else max(best, top)
    assert best is not None
    return best


class _Cuts:
    """Asked for every value c + s t whose sign matters: which it has in the middle of a piece, and
    where the piece is to be cut, if the sign changes inside.
    """

    def __init__(self, start: Fraction, stop: Fraction) -> None:
        self._start, self._stop = start, stop
        self.at: Fraction | None = None

    def __call__(self, form: tuple[Fraction, Fraction]) -> bool:
        c, s = form
        if s:
            root = -c / s
            if self._start < root < self._stop and self.at is None:
                self.at = root
        return bool(c + s * (self._start + self._stop) / 2 > 0)


Form = tuple[Exact, Exact]


def _forms(layers: Iterable[Layer], form: Form, positive: Any) -> Form:
    """Values as c + s t; `positive` says of a form which sign counts."""
    for layer in layers:
        form = _layer(layer, form, positive)
    return form


def _layer(layer: Layer, form: Form, positive: Any) -> Form:
    c, s = form
    match layer.kind:
        case "gemm":
            weight = fractions(layer.weight)
            return weight @ c + fractions(layer.bias), weight @ s
        case "conv":
            return _conv(layer, c, with_bias=True), _conv(layer, s, with_bias=False)
        case "relu":
            forms = zip(c.ravel().tolist(), s.ravel().tolist(), strict=True)
            kept = np.array([_sign(form, positive) for form in forms])
            return c * kept.reshape(c.shape), s * kept.reshape(s.shape)
        case "avgpool":
            return _mean(c), _mean(s)
        case "maxpool":
            return _largest(form, positive)
        case "flatten":
            return c.reshape(-1), s.reshape(-1)
        case "residual":
            inner = _forms(layer.inner, form, positive)
            return c + inner[0], s + inner[1]
    raise ValueError(layer.kind)


def _sign(form: tuple[Fraction, Fraction], positive: Any) -> int:
    said = positive(form)
    return int(form[0] > 0) if said is None else int(said)


def _conv(layer: Layer, x: Exact, *, with_bias: bool) -> Exact:
    weight = fractions(layer.weight)
    outputs, _, height, width = weight.shape
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    result = np.zeros((outputs, rows, columns), dtype=object)
    for row in range(rows):
        for column in range(columns):
            window = x[:, row : row + height, column : column + width].reshape(-1)
            result[:, row, column] = weight.reshape(outputs, -1) @ window
    return result + fractions(layer.bias)[:, None, None] if with_bias else result


def _windows(x: Exact) -> Exact:
    """[channels, rows, columns] to [channels, rows / 2, columns / 2, 4]."""
    channels, rows, columns = x.shape
    cut = x[:, : rows // 2 * 2, : columns // 2 * 2]
    cut = cut.reshape(channels, rows // 2, 2, columns // 2, 2)
    return cut.transpose(0, 1, 3, 2, 4).reshape(channels, rows // 2, columns // 2, 4)


def _mean(x: Exact) -> Exact:
    mean: Exact = _windows(x).sum(3) / Fraction(4)
    return mean


def _largest(form: Form, positive: Any) -> Form:
    c, s = (_windows(part) for part in form)
    best_c, best_s = c[..., 0].copy(), s[..., 0].copy()
    for index in range(1, 4):
        for at in np.ndindex(best_c.shape):
            ahead = c[at][index] - best_c[at], s[at][index] - best_s[at]
            if _sign(ahead, positive):
                best_c[at], best_s[at] = c[at][index], s[at][index]
    return best_c, best_s
