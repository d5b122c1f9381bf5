"""Float64 arithmetic that knows how far it may be off: for constants computed from the file's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
Truth = NDArray[np.bool_]

_UNIT = 2.0**-53  # what rounding to nearest adds, relative to the result
_LEAST = 2.0**-1074  # and where the result is too small for that
_SAFE = 2.0**-1000  # well above where bits are lost
_OF_ERRORS = 1 + 2.0**-40  # errors are rounded too


@dataclass(frozen=True)
class Rounded:
    """Values, and bounds entry by entry of their distance from the exact ones."""

    value: Values
    error: Values

    @classmethod
    def exact(cls, value: ArrayLike) -> Rounded:
        """Of any float type up to float64."""
        values = np.asarray(value, dtype=np.float64)
        return cls(values, np.zeros_like(values))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def T(self) -> Rounded:
        return self.map(np.transpose)

    @property
    def is_exact(self) -> bool:
        return not self.error.any()

    @property
    def is_one(self) -> bool:
        return self.is_exact and bool((self.value == 1).all())

    @property
    def is_zero(self) -> bool:
        return self.is_exact and not self.value.any()

    @property
    def _is_some(self) -> Truth:
        """Where it may be other than zero."""
        some: Truth = (self.value != 0) | (self.error != 0)
        return some

    def reshape(self, *shape: int) -> Rounded:
        return Rounded(self.value.reshape(shape), self.error.reshape(shape))

    def __neg__(self) -> Rounded:
        return Rounded(-self.value, self.error)

    def __add__(self, other: Rounded) -> Rounded:
        total = self.value + other.value
        rounded = np.where(_sum_is_exact(self.value, other.value), 0.0, _rounding(total))
        return _with_errors(total, self.error + other.error, rounded)

    def __sub__(self, other: Rounded) -> Rounded:
        return self + -other

    def __mul__(self, other: Rounded) -> Rounded:
        product = self.value * other.value
        carried = abs(self.value) * other.error + (abs(other.value) + other.error) * self.error
        rounded = np.where(_product_is_exact(self.value, other.value), 0.0, _rounding(product))
        underflown = np.where((self.error == 0) & (other.error == 0), 0.0, 3 * _LEAST)
        return _with_errors(product, carried + underflown, rounded)

    def __matmul__(self, other: Rounded) -> Rounded:
        """Of any order of summation (Higham, chapter 3)."""
        length = self.value.shape[-1]
        with np.errstate(over="ignore", invalid="ignore"):
            product = self.value @ other.value
            sizes = abs(self.value), abs(other.value)
            carried = sizes[0] @ other.error + self.error @ (sizes[1] + other.error)
            rounded = _of_sums(sizes[0] @ sizes[1] + carried, length)
        some = self._is_some @ other._is_some
        return _with_errors(product, carried, np.where(some, rounded, 0.0))

    def sum(self, axes: tuple[int, ...]) -> Rounded:
        """Over these axes, which stay as one value each."""
        value, error = (part.sum(axis=axes, keepdims=True) for part in (self.value, self.error))
        count = self.value.size // max(1, value.size)
        sizes = abs(self.value).sum(axis=axes, keepdims=True)
        return _with_errors(value, error, _of_sums(sizes + error, count) * (count > 1))

    def map(self, move: Callable[[Values], Values]) -> Rounded:
        """`move` puts values elsewhere, and changes none."""
        return Rounded(move(self.value), move(self.error))

    def reciprocal(self) -> Rounded:
        """Infinite where the error leaves zero possible."""
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / self.value
            nearest = abs(self.value) - self.error
            carried = (abs(inverse) * self.error + _LEAST) / nearest + _LEAST  # both may underflow
            carried = np.where(self.error == 0, 0.0, carried)
        rounded = np.where(_has_exact_reciprocal(self.value), 0.0, _rounding(inverse))
        return _with_errors(np.where(nearest > 0, inverse, np.inf), carried, rounded)

    def sqrt(self) -> Rounded:
        """Not a number where the error leaves a negative value possible."""
        with np.errstate(invalid="ignore", divide="ignore"):
            root = np.sqrt(self.value)
            least = np.sqrt(self.value - self.error)
            carried = np.where(self.error == 0, 0.0, self.error / least + _LEAST)
        return _with_errors(np.where(least >= 0, root, np.nan), carried, _rounding(root))

    def log(self) -> Rounded:
        """Of exact positive values; the library's is off by an ulp or two."""
        found = np.log(self.value)
        return Rounded(found, 8 * _rounding(found))


def power_of_two(value: Values) -> Truth:
    """Whether a product with it is exact, as long as it stays in range."""
    mantissas: Values = np.frexp(np.abs(value))[0]
    halves: Truth = mantissas == 0.5
    return halves


def _sum_is_exact(one: Values, other: Values) -> Truth:
    """Whether nothing is lost (Knuth's two-sum)."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = one + other
        part = total - one
        exact: Truth = (one - (total - part)) + (other - part) == 0
    return exact


def _product_is_exact(one: Values, other: Values) -> Truth:
    """Two of float32 have at most 48 bits together, and the least of them are far from 2**-1074."""
    with np.errstate(over="ignore"):
        short = (one.astype(np.float32) == one) & (other.astype(np.float32) == other)
        scaled = (power_of_two(one) | power_of_two(other)) & (abs(one * other) > _SAFE)
    exact: Truth = short | scaled
    return exact


def _has_exact_reciprocal(value: Values) -> Truth:
    exact: Truth = power_of_two(value) & (abs(value) > _SAFE) & (abs(value) < 1 / _SAFE)
    return exact


def _rounding(result: Values) -> Values:
    return np.abs(result) * _UNIT + _LEAST


def _of_sums(sizes: Values, terms: int) -> Values:
    """What summing may lose; `sizes`: sums of as many magnitudes."""
    share = 2 * terms * _UNIT  # more than terms / (1 - terms * unit), and than rounding of `sizes`
    return sizes * share + 4 * terms * _LEAST  # products and carried errors may underflow


def _with_errors(value: Values, carried: Values, rounded: Values) -> Rounded:
    return Rounded(value, (carried + rounded) * _OF_ERRORS)
