"""The columns of a run folder's tables: one frozen dataclass per file, fields in column order.

An empty cell means that the value was not measured. Seconds and bytes are never rounded.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from types import NoneType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, get_args, get_type_hints

from runner.contract.measurements import Measurements
from runner.contract.vocabulary import Cause, Verdict
from runner.problem.names import one_line

SCHEMA_VERSION = 5

Cell = str | int | float | None


class Key(NamedTuple):
    """What makes a row the row of one question: an instance (with its timeout), a strategy, and
    which of the command's repeats it is, from 1.
    """

    category: str
    network: str
    property: str
    timeout_s: float | None  # None: the row of instances.csv has none that can be read
    strategy: str
    repeat: int = 1


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a row of either table is about."""

    category: str
    network: str
    property: str
    strategy: str
    ranks: int
    timeout_s: float | None
    repeat: int = 1

    def key(self) -> Key:
        return Key(*(getattr(self, name) for name in Key._fields))


@dataclass(frozen=True, kw_only=True)
class _Answered(_Asked):
    """What was answered, and by whom."""

    verdict: Verdict
    cause: Cause
    late_answer: str = ""
    """The verdict that came after the timeout."""
    message: str = ""
    """The cause in words."""
    method: str = ""
    """What decided, or what was tried last."""
    lower_bound: float | None = None
    """The worst margin: above 0, it proves `unsat`."""
    prepare_time_s: float | None = None
    """Of converting the network; empty where it had been converted."""
    run_time_s: float | None = None
    """From the start of the gang to its end."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Measurements, _Answered):
    """A row of outcomes.csv: measurements of the ranks together (`OfGang` says how)."""


@dataclass(frozen=True, kw_only=True)
class _Rank(_Asked):
    """Which rank."""

    rank: int


@dataclass(frozen=True, kw_only=True)
class RankRow(Measurements, _Rank):
    """A row of ranks.csv; measurements are empty for a rank that left no report."""


class DataRow(Protocol):
    """A dataclass whose fields are cells, which a line of a table is made from."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Row = TypeVar("Row", bound=DataRow)


@dataclass(frozen=True)
class CsvColumn:
    """One column: the Python type of its cells and whether they may be empty."""

    name: str
    kind: type
    optional: bool

    def dtype(self) -> str:
        """The pandas dtype; integers are nullable because "not measured" is not 0."""
        return {int: "Int64", float: "float64"}.get(self.kind, "string")

    def parse(self, cell: str) -> Any:
        """Raises ValueError when the cell does not hold what the column promises."""
        return None if self.optional and cell == "" else self.kind(cell)


def columns(row_type: type[DataRow]) -> tuple[CsvColumn, ...]:
    """The columns of a table, in file order."""
    hints = get_type_hints(row_type)
    return tuple(_column(field.name, hints[field.name]) for field in fields(row_type))


def _column(name: str, hint: type) -> CsvColumn:
    kinds = get_args(hint)
    if not kinds:
        return CsvColumn(name, hint, optional=False)
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    return CsvColumn(name, kind, optional=True)


def header(row_type: type[DataRow]) -> str:
    """The first line of a table."""
    return csv_line([column.name for column in columns(row_type)])


def format_row(row: DataRow) -> str:
    """One line of a table, newline included."""
    return csv_line(astuple(row))


def parse_row(row_type: type[Row], table: Sequence[CsvColumn], cells: Sequence[str]) -> Row:
    """The inverse of `format_row`, where `table` is what the file has of `columns(row_type)`.

    Raises ValueError for a row of another shape.
    """
    if len(cells) != len(table):
        raise ValueError(f"{len(cells)} cells where {len(table)} were expected")
    values: list[Any] = [column.parse(cell) for column, cell in zip(table, cells, strict=True)]
    return row_type(**dict(zip((column.name for column in table), values, strict=True)))


def csv_line(cells: Sequence[Cell]) -> str:
    """One line of CSV: floats in full, None as an empty cell, text as `one_line` leaves it."""
    buffer = io.StringIO()
    flat = [one_line(cell) if isinstance(cell, str) else cell for cell in cells]
    csv.writer(buffer, lineterminator="\n").writerow(flat)
    return buffer.getvalue()
