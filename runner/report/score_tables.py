"""The tables of a score: their columns, titles and notes."""

from __future__ import annotations

import pandas as pd

from runner.report.score import by_category, losses, penalties, totals
from runner.report.table import Column, Table
from runner.report.text import count, seconds, share


def _number(title: str, source: str) -> Column:
    return Column(title, source, count, number=True)


_COUNTS = (
    _number("verified", "verified"),
    _number("falsified", "falsified"),
    _number("penalties", "penalties"),
    _number("points", "points"),
)


def score_tables(answers: pd.DataFrame) -> tuple[Table, ...]:
    """Totals, categories, what was lost, and every penalty."""
    return (
        Table(
            "score",
            "Score",
            (
                Column("tool", "tool"),
                _number("categories", "categories"),
                *_COUNTS,
                Column("score", "score", "{:.1f}".format, number=True),
                Column("overhead", "overhead_s", seconds, number=True),
            ),
            totals(answers),
            "Score: sum over categories of 100 · points / points of the best tool, at least 0. "
            "Overhead: the quickest answer; it is not subtracted.",
        ),
        Table(
            "score_by_category",
            "Score by category",
            (
                Column("category", "category"),
                Column("tool", "tool"),
                *_COUNTS,
                Column("percent", "percent", "{:.1f}".format, number=True),
                Column("solved", "solved_share", share, number=True),
            ),
            by_category(answers),
        ),
        Table(
            "losses",
            "Why points were lost",
            (
                Column("tool", "tool"),
                Column("reason", "reason"),
                _number("answers", "answers"),
                _number("points lost", "lost"),
            ),
            losses(answers),
        ),
        Table(
            "penalties",
            "Penalties",
            (
                Column("tool", "tool"),
                Column("category", "category"),
                Column("network", "network"),
                Column("property", "property"),
                Column("verdict", "verdict"),
                Column("reason", "reason"),
                Column("detail", "detail"),
            ),
            penalties(answers).assign(alarm=True),
            alarm="alarm",
        ),
    )
