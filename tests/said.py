"""What the soundness suite decided, printed at the end: undecided is no failure, but it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

SAID = "said"


def _said(reporter: pytest.TerminalReporter) -> Iterator[tuple[str, str]]:
    for reports in reporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, said in report.user_properties:
                    if name == SAID:
                        how, verdict = said
                        yield how, verdict


def print_decided(terminalreporter: pytest.TerminalReporter) -> None:
    decided = Counter(_said(terminalreporter))
    for how in sorted({how for how, _ in decided}):
        verdicts = {verdict: count for (h, verdict), count in decided.items() if h == how}
        total = sum(verdicts.values())
        right = verdicts.get("sat", 0) + verdicts.get("unsat", 0)
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
        terminalreporter.write_line(f"soundness, {how}: {right} of {total} decided ({said})")
