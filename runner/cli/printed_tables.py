"""A run's tables on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from runner.report.gather import Evidence
    from runner.report.table import Table

_MOST_STRATEGIES = 7  # in a row, or else words break on a terminal of 120 columns


def print_strategies(evidence: Evidence, out: Console, by_category: bool = False) -> None:
    """What must not be overlooked, the strategies side by side, then a sentence about each."""
    from runner.report.gather import INSTANCE
    from runner.report.grid import columns_apart
    from runner.report.render import rich_table
    from runner.report.sentences import sentences
    from runner.report.strategy_rows import contradictions
    from runner.report.table import grid
    from runner.report.tables import short, side_by_side, strategies_table

    for note in evidence.notes:
        out.print(Text(note, style="yellow"), soft_wrap=True)
    for names, rows in contradictions(evidence).groupby(INSTANCE, sort=False):
        said = ", ".join(f"{row.label} {row.verdict}" for row in rows.itertuples())
        message = f"CONTRADICTION: {' '.join(map(str, names))}: {said}"
        out.print(Text(message, style="bold red"), soft_wrap=True)
    table = strategies_table(evidence)
    for text in side_by_side(table)[slice(None) if by_category else slice(-1, None)]:
        for part in columns_apart(text, _MOST_STRATEGIES):
            out.print(rich_table(part))
    if len(evidence.categories) > 1 and not by_category:
        out.print(rich_table(grid(short(table))))
    out.print(table.note, style="dim")
    for sentence in sentences(evidence):
        out.print(Text(sentence), soft_wrap=True)


def print_table(table: Table, out: Console, most: int | None = None) -> None:
    """A line per row, and how many were left out after the first `most`."""
    from runner.report.render import rich_table
    from runner.report.table import grid

    if table.frame.empty:
        return
    out.print(rich_table(grid(table.part(table.frame.iloc[:most]))))
    if most is not None and len(table.frame) > most:
        out.print(f"… and {len(table.frame) - most:,} more", style="dim")
    if table.note:
        out.print(table.note, style="dim")
