"""A run folder read back as DataFrames; works while the run goes on and after it was killed."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pandas as pd

from runner.record.folder import OUTCOMES, RANKS, read_rows
from runner.record.schema import Key, Outcome, RankRow, Row, columns


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


def _table(path: Path, row_type: type[Row]) -> pd.DataFrame:
    """Empty cells are NA in columns of numbers and stay empty in columns of text."""
    dtypes = {column.name: column.dtype() for column in columns(row_type)}
    rows = [astuple(row) for row in read_rows(path, row_type)]
    return pd.DataFrame(rows, columns=list(dtypes), dtype=object).astype(dtypes)
