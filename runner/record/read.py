"""A run folder read back as DataFrames; works while the run goes on and after it was killed."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from runner.errors import UsageError
from runner.record.append import whole_lines
from runner.record.folder import OUTCOMES, RANKS
from runner.record.schema import Key, Outcome, RankRow, columns


def outcomes(run: Path) -> pd.DataFrame:
    """outcomes.csv with declared dtypes: one row per instance and strategy.

    A last row that is only half written is left out. Raises UsageError when the file is not of
    this version.
    """
    return _table(run / OUTCOMES, Outcome)


def ranks(run: Path) -> pd.DataFrame:
    """ranks.csv with declared dtypes: the rows of the questions that have an outcome."""
    rows = _table(run / RANKS, RankRow)
    committed = _table(run / OUTCOMES, Outcome)[list(Key._fields)]
    return rows.merge(committed, on=list(Key._fields), how="inner")


def _table(path: Path, row_type: type) -> pd.DataFrame:
    """Empty cells become NA in number columns and stay empty in text columns."""
    expected = columns(row_type)
    numbers = [column.name for column in expected if column.dtype() != "string"]
    text = whole_lines(path)
    if not text:
        empty = pd.DataFrame(columns=[column.name for column in expected])
        return empty.astype({column.name: column.dtype() for column in expected})
    try:
        table = pd.read_csv(
            io.StringIO(text),
            dtype={column.name: column.dtype() for column in expected},
            keep_default_na=False,
            na_values={name: [""] for name in numbers},
            float_precision="round_trip",
        )
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if list(table.columns) != [column.name for column in expected]:
        raise UsageError(f"{path}: these are not the columns of this version of the program")
    return table
