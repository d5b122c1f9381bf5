"""The tables of a comparison of two runs."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from runner.report.changes import Change, summary
from runner.report.columns import CATEGORY, NETWORK, PROPERTY, number
from runner.report.table import Column, Table
from runner.report.text import ratio, seconds, size

_WHO = (Column("strategy", "strategy"), CATEGORY, NETWORK, PROPERTY)


def change_tables(table: pd.DataFrame) -> tuple[Table, ...]:
    """Answers, times and memory that changed, worst first, and a line for each strategy."""
    answers = table[table["change"] != Change.NONE]
    order = {change: place for place, change in enumerate((Change.CONTRADICTS, Change.LOST))}
    answers = answers.assign(
        alarm=answers["change"].isin(list(order)),
        place=[order.get(Change(change), len(order)) for change in answers["change"]],
    )
    return (
        Table(
            "answers",
            "Answers that changed",
            (
                *_WHO,
                Column("old", "verdict_old"),
                Column("new", "verdict_new"),
                Column("change", "change"),
            ),
            answers.sort_values("place", kind="stable"),
            alarm="alarm",
        ),
        _beyond_noise(table, "time", "Times", seconds),
        _beyond_noise(table, "memory", "Peak memory", size),
        Table(
            "summary",
            "New against old",
            (
                Column("strategy", "strategy"),
                number("ranks", "ranks"),
                *(number(name, name) for name in ("instances", "lost", "won", "contradicts")),
                number("time", "time_ratio", ratio),
                number("noise", "time_noise", ratio),
                number("slower", "slower"),
                number("faster", "faster"),
                number("memory", "memory_ratio", ratio),
                number("more", "more"),
                number("less", "less"),
            ),
            summary(table),
            "Time and memory: geometric means of new / old over what both ran to an end. "
            "Noise: the factor that chance explains for one instance.",
        ),
    )


def _beyond_noise(
    table: pd.DataFrame, name: str, title: str, text: Callable[[float], str]
) -> Table:
    """What changed of one quantity, the greatest growth first."""
    changed = table[table[f"{name}_changed"]]
    return Table(
        name,
        f"{title} that changed beyond noise",
        (
            *_WHO,
            number("old", f"{name}_old", text),
            number("new", f"{name}_new", text),
            number("new / old", f"{name}_ratio", ratio),
            number("noise", f"{name}_noise", ratio),
        ),
        changed.sort_values(f"{name}_ratio", ascending=False),
    )
