"""The experiment on parts of the engine as a table."""

from __future__ import annotations

import pandas as pd

from runner.report.columns import CATEGORY, number
from runner.report.table import Column, Table
from runner.report.text import ratio, seconds

_COLUMNS = (
    CATEGORY,
    Column("left out", "without"),
    number("instances", "instances"),
    number("decided", "decided"),
    number("lost", "lost"),
    number("won", "won"),
    number("contradict", "contradict"),
    number("both", "both"),
    number("changed", "changed"),
    number("median CPU", "median_cpu_s", seconds),
    number("total CPU", "total_cpu_s", seconds),
    number("/ whole", "of_whole", ratio),
    number("went wrong", "trouble"),
)
_NOTE = (
    "Lost: decided by the whole engine and not without the part; won: the other way round. "
    "Contradict: one says sat and the other unsat, so that one of them is wrong. Both: what either "
    "way decides; changed: of those, by another method, with another bound or over other "
    "sub-problems; the rest differ by noise alone. Processor time is of what both decide, and of "
    "the whole process; / whole: its total against that of the whole engine on the same instances. "
    "A part without which nothing changes in a category has no line there, but in all of them."
)


def ablation_table(frame: pd.DataFrame) -> Table:
    """Of a summary (runner.experiments.ablation_experiment), without what says nothing."""
    several = frame["category"].nunique() > 1
    says = frame[["changed", "lost", "won", "trouble"]].any(axis=1)
    # The first line of a category is the whole engine's, and the last category all of them.
    last, first = frame["category"].iloc[-1], ~frame["category"].duplicated()
    frame = frame[says | first | (frame["category"] == last)]
    columns = tuple(
        column
        for column in _COLUMNS
        if not (column is CATEGORY and not several)
        and not (column.source == "trouble" and not frame["trouble"].any())
    )
    frame = frame.assign(alarm=frame["contradict"] > 0)
    title = "What each part of the engine buys"
    return Table("ablation", title, columns, frame, _NOTE, alarm="alarm")
