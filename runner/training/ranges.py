"""Numbers of a recipe that make no sense are refused before anything runs."""

from __future__ import annotations

import math

from runner.contract.errors import UsageError


def within(key: str, value: float, least: float, most: float) -> None:
    """Raises UsageError for a value of a key that is out of range, or not a number."""
    if not (math.isfinite(value) and least <= value <= most):
        raise UsageError(f"{key} = {value}: a number from {least:g} to {most:g} is needed")


def radius(key: str, value: float) -> None:
    """Raises UsageError for what is no L∞ radius of images whose pixels are in [0, 1]."""
    if not 0 < value <= 1:
        raise UsageError(f"{key} = {value}: a radius above 0 and at most 1 is needed")
