"""The columns of a run folder's tables: one frozen dataclass per file, fields in column order.

An empty cell means that the value was not measured. Seconds and bytes are never rounded.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from runner.contract.vocabulary import Cause, Meter, Verdict
from runner.problem.names import one_line

SCHEMA_VERSION = 4

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


@dataclass(frozen=True)
class Outcome:
    """A row of outcomes.csv; `peak_*` and `weight_bytes` are the greatest over the ranks."""

    category: str
    network: str
    property: str
    strategy: str
    ranks: int
    timeout_s: float | None
    verdict: Verdict
    cause: Cause
    late_answer: str = ""  # the verdict that came after the timeout
    prepare_time_s: float | None = None
    run_time_s: float | None = None
    method: str = ""  # what decided, or the last one tried
    lower_bound: float | None = None
    peak_tensor_bytes: int | None = None
    peak_rss_bytes: int | None = None
    peak_gpu_bytes: int | None = None
    weight_bytes: int | None = None
    meter: Meter = Meter.NONE
    message: str = ""
    repeat: int = 1
    domains: int | None = None  # sub-problems that branch and bound bounded
    rounds: int | None = None
    domains_per_s: float | None = None
    depth: int | None = None  # splits above the deepest domain
    # Of the rank with the greatest `peak_tensor_bytes`, at that moment.
    at_peak_weight_bytes: int | None = None
    at_peak_a_bytes: int | None = None
    at_peak_alpha_bytes: int | None = None
    at_peak_beta_bytes: int | None = None
    at_peak_bounds_bytes: int | None = None
    at_peak_other_bytes: int | None = None

    def key(self) -> Key:
        return _key(self)


@dataclass(frozen=True)
class RankRow:
    """A row of ranks.csv; measurements are empty for a rank that left no report."""

    category: str
    network: str
    property: str
    strategy: str
    ranks: int
    rank: int
    device: str = ""
    wall_s: float | None = None
    cpu_s: float | None = None
    attack_s: float | None = None
    incomplete_s: float | None = None
    complete_s: float | None = None
    peak_tensor_bytes: int | None = None
    peak_weight_bytes: int | None = None
    peak_a_bytes: int | None = None
    peak_alpha_bytes: int | None = None
    peak_rss_bytes: int | None = None
    peak_gpu_allocated_bytes: int | None = None
    peak_gpu_reserved_bytes: int | None = None
    nvml_peak_bytes: int | None = None
    comm_bytes: int | None = None
    comm_s: float | None = None
    collectives: int | None = None
    timeout_s: float | None = None
    load_s: float | None = None
    weight_bytes: int | None = None  # resting
    peak_beta_bytes: int | None = None
    peak_bounds_bytes: int | None = None
    peak_other_bytes: int | None = None
    meter: Meter = Meter.NONE
    repeat: int = 1
    domains: int | None = None  # sub-problems that branch and bound bounded
    rounds: int | None = None
    domains_per_s: float | None = None
    depth: int | None = None  # splits above the deepest domain
    # Live bytes when those of all kinds together were at their peak; the others, `peak_*_bytes`,
    # are each at its own.
    at_peak_weight_bytes: int | None = None
    at_peak_a_bytes: int | None = None
    at_peak_alpha_bytes: int | None = None
    at_peak_beta_bytes: int | None = None
    at_peak_bounds_bytes: int | None = None
    at_peak_other_bytes: int | None = None

    def key(self) -> Key:
        return _key(self)


Row = TypeVar("Row", Outcome, RankRow)


def _key(row: Outcome | RankRow) -> Key:
    return Key(*(getattr(row, name) for name in Key._fields))


@dataclass(frozen=True)
class Column:
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


def columns(row_type: type) -> tuple[Column, ...]:
    """The columns of `Outcome` or `RankRow`, in file order."""
    hints = get_type_hints(row_type)
    return tuple(_column(field.name, hints[field.name]) for field in fields(row_type))


def _column(name: str, hint: type) -> Column:
    kinds = get_args(hint)
    if not kinds:
        return Column(name, hint, optional=False)
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    return Column(name, kind, optional=True)


def header(row_type: type) -> str:
    """The first line of a table."""
    return csv_line([column.name for column in columns(row_type)])


def format_row(row: Outcome | RankRow) -> str:
    """One line of a table, newline included."""
    return csv_line(astuple(row))


def parse_row(row_type: type[Row], table: Sequence[Column], cells: Sequence[str]) -> Row:
    """The inverse of `format_row`, where `table` is `columns(row_type)`.

    Raises ValueError for a row of another shape.
    """
    if len(cells) != len(table):
        raise ValueError(f"{len(cells)} cells where {len(table)} were expected")
    values: list[Any] = [column.parse(cell) for column, cell in zip(table, cells, strict=True)]
    return row_type(*values)


def csv_line(cells: Sequence[Cell]) -> str:
    """One line of CSV: floats in full, None as an empty cell, text as `one_line` leaves it."""
    buffer = io.StringIO()
    flat = [one_line(cell) if isinstance(cell, str) else cell for cell in cells]
    csv.writer(buffer, lineterminator="\n").writerow(flat)
    return buffer.getvalue()
