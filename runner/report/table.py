"""A table for people: which columns a frame shows, and how each value is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from runner.report.grid import Grid
from runner.report.text import ABSENT


@dataclass(frozen=True)
class Column:
    """A column of a frame under a title. `text` writes a value; NA is written as a dash.

    `sort`: the column that a reader's sorting goes by, if not `source` itself.
    """

    title: str
    source: str
    text: Callable[[Any], str] = str
    number: bool = False
    sort: str = ""

    def written(self, value: Any) -> str:
        return ABSENT if pd.isna(value) else self.text(value)


@dataclass(frozen=True)
class Table:
    """`alarm` names a boolean column whose true rows are shown in red."""

    name: str
    title: str
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    note: str = ""
    alarm: str = ""

    def alarms(self) -> list[bool]:
        return [bool(value) for value in self.frame[self.alarm]] if self.alarm else []

    def part(self, frame: pd.DataFrame, title: str = "") -> Table:
        """The same columns over other rows."""
        return replace(self, frame=frame, title=title or self.title)


def grid(table: Table) -> Grid:
    """A line per row of the frame."""
    written = [
        [column.written(value) for value in table.frame[column.source]] for column in table.columns
    ]
    return Grid(
        title=table.title,
        head=tuple(column.title for column in table.columns),
        numbers=tuple(column.number for column in table.columns),
        rows=tuple(zip(*written, strict=True)),
        red=frozenset(index for index, alarm in enumerate(table.alarms()) if alarm),
        note=table.note,
    )


def transposed(table: Table, heading: str, without: Sequence[str] = ()) -> Grid:
    """A line per column and a column per row; `heading` is the column that names the rows."""
    shown = [column for column in table.columns if column.source not in {heading, *without}]
    names = [str(name) for name in table.frame[heading]]
    return Grid(
        title=table.title,
        head=("", *names),
        numbers=(False, *(True for _ in names)),
        rows=tuple(
            (column.title, *(column.written(value) for value in table.frame[column.source]))
            for column in shown
        ),
        note=table.note,
    )
