"""How much a test tries: a few examples with --quick, all with --exhaustive, else what is enough to
notice a fault while one waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings

QUICK, EXHAUSTIVE = "quick", "exhaustive"
QUICK_EXAMPLES = 10
GATE_SHARE = 3  # one example in three

settings.register_profile(QUICK, max_examples=QUICK_EXAMPLES, deadline=None)
settings.register_profile(EXHAUSTIVE)


def examples(count: int, least: int = QUICK_EXAMPLES) -> settings:
    """`least`: so many are always tried. Examples are slow for a bounded time each only on a
    machine with nothing else to do: none has a deadline.
    """
    return settings(max_examples=_share(count, least), deadline=None)


def seeds(first: int, count: int) -> range:
    """Of a test that makes its own questions."""
    return range(first, first + _share(count, QUICK_EXAMPLES))


def _share(count: int, least: int) -> int:
    if settings.get_current_profile_name() == EXHAUSTIVE:
        return count
    if settings.get_current_profile_name() == QUICK:
        return min(count, least)
    return min(count, max(least, count // GATE_SHARE))


def rest(*values: object) -> list[Any]:
    """Parameters that only --exhaustive tries: others stand for them."""
    return [pytest.param(*_tuple(value), marks=pytest.mark.exhaustive) for value in values]


def rest_but(stays: Callable[[Any], object], values: Iterable[object]) -> list[Any]:
    """All values in their order, of which only --exhaustive tries those that do not stay."""
    return [value if stays(value) else rest(value)[0] for value in values]


def _tuple(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)
