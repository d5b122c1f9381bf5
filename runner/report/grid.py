"""A table as text alone: what every way of writing it starts from. Imports no pandas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Grid:
    """`numbers` says which columns are aligned to the right, `red` which rows alarm."""

    title: str
    head: tuple[str, ...]
    numbers: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    red: frozenset[int] = frozenset()
    note: str = ""


def columns_apart(grid: Grid, most: int) -> list[Grid]:
    """Grids with the first column and at most `most` of the others each, title and note once."""
    starts = range(1, max(2, len(grid.head)), most)

    def part(cells: tuple[T, ...], start: int) -> tuple[T, ...]:
        return (*cells[:1], *cells[start : start + most])

    return [
        replace(
            grid,
            title=grid.title if start == starts[0] else "",
            head=part(grid.head, start),
            numbers=part(grid.numbers, start),
            rows=tuple(part(row, start) for row in grid.rows),
            note=grid.note if start == starts[-1] else "",
        )
        for start in starts
    ]
