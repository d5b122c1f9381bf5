"""A table as text alone: what every way of writing it starts from. Imports no pandas."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """`numbers` says which columns are aligned to the right, `red` which rows alarm."""

    title: str
    head: tuple[str, ...]
    numbers: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    red: frozenset[int] = frozenset()
    note: str = ""
