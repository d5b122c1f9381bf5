"""How the soundness suite notes what it decided; tests/conftest.py prints that at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from said import SAID

Tally = Callable[[str, str], None]


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Takes how a question was asked, and the verdict."""

    def note(how: str, verdict: str) -> None:
        # A property of the report: it comes back from a worker's process, too.
        request.node.user_properties.append((SAID, (how, verdict)))

    return note
