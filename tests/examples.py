"""How many examples hypothesis tries: all of them, or the few of --quick."""

from __future__ import annotations

from hypothesis import settings

QUICK = "quick"
QUICK_EXAMPLES = 10

settings.register_profile(QUICK, max_examples=QUICK_EXAMPLES, deadline=None)


def examples(count: int) -> settings:
    """Examples are slow for a bounded time each only on a machine with nothing else to do: none
    has a deadline.
    """
    quick = settings.get_current_profile_name() == QUICK
    return settings(max_examples=min(count, QUICK_EXAMPLES) if quick else count, deadline=None)
