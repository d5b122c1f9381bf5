"""How many examples a test tries: all of them, or the few of --quick."""

from __future__ import annotations

from hypothesis import settings

QUICK = "quick"
QUICK_EXAMPLES = 10

settings.register_profile(QUICK, max_examples=QUICK_EXAMPLES, deadline=None)


def examples(count: int) -> settings:
    """Examples are slow for a bounded time each only on a machine with nothing else to do: none
    has a deadline.
    """
    return settings(max_examples=min(count, QUICK_EXAMPLES) if _quick() else count, deadline=None)


def seeds(first: int, count: int) -> range:
    """Of a test that makes its own questions: all, or a quarter of them."""
    return range(first, first + (count // 4 if _quick() else count))


def _quick() -> bool:
    return settings.get_current_profile_name() == QUICK
