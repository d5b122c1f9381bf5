"""What the soundness suite decided, printed at the end: undecided is no failure, but it counts."""

from __future__ import annotations

from collections import Counter

import pytest

DECIDED: Counter[tuple[str, str]] = Counter()


@pytest.fixture(scope="session")
def tally() -> Counter[tuple[str, str]]:
    """How often each verdict was said, by how it was asked."""
    return DECIDED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for how in sorted({how for how, _ in DECIDED}):
        verdicts = {verdict: count for (h, verdict), count in DECIDED.items() if h == how}
        total = sum(verdicts.values())
        decided = verdicts.get("sat", 0) + verdicts.get("unsat", 0)
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
        terminalreporter.write_line(f"soundness, {how}: {decided} of {total} decided ({said})")
