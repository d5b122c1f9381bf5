"""The tables of a score: their columns, titles and notes."""

from __future__ import annotations

import pandas as pd

from runner.report.columns import CATEGORY, NETWORK, PROPERTY, number
from runner.report.score import by_category, losses, penalties, rounded, totals
from runner.report.table import Column, Table
from runner.report.text import seconds, share

_COUNTS = (
    number("verified", "verified"),
    number("falsified", "falsified"),
    number("penalties", "penalties"),
    number("points", "points"),
)


def score_tables(answers: pd.DataFrame) -> tuple[Table, ...]:
    """Totals, categories, what was lost, every penalty, and what rests on rounding alone."""
    return (
        Table(
            "score",
            "Score",
            (
                Column("tool", "tool"),
                number("categories", "categories"),
                *_COUNTS,
                number("score", "score", "{:.1f}".format),
                number("overhead", "overhead_s", seconds),
            ),
            totals(answers),
            "Score: sum over categories of 100 · points / points of the best tool, at least 0. "
            "Overhead: the quickest answer; it is not subtracted.",
        ),
        Table(
            "score_by_category",
            "Score by category",
            (
                CATEGORY,
                Column("tool", "tool"),
                *_COUNTS,
                number("percent", "percent", "{:.1f}".format),
                number("solved", "solved_share", share),
            ),
            by_category(answers),
        ),
        Table(
            "losses",
            "Why points were lost",
            (
                Column("tool", "tool"),
                Column("reason", "reason"),
                number("answers", "answers"),
                number("points lost", "lost"),
            ),
            losses(answers),
        ),
        Table(
            "penalties",
            "Penalties",
            (
                Column("tool", "tool"),
                CATEGORY,
                NETWORK,
                PROPERTY,
                Column("verdict", "verdict"),
                Column("reason", "reason"),
                Column("detail", "detail"),
                Column("by rounding", "rounding"),
            ),
            penalties(answers).assign(alarm=True),
            alarm="alarm",
        ),
        Table(
            "rounding",
            "Counterexamples by rounding alone",
            (
                Column("tool", "tool"),
                CATEGORY,
                NETWORK,
                PROPERTY,
                Column("verdict", "verdict"),
                number("points", "points"),
                Column("by rounding", "rounding"),
            ),
            rounded(answers),
            "VNN-COMP's checker rounds limits to the network's precision and accepts these points.",
        ),
    )
