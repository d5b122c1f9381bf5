"""Run folders read back as DataFrames; works while a run goes on and after it was killed."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.contract.errors import UsageError
from runner.record.append import whole_lines
from runner.record.folder import OUTCOMES, RANKS
from runner.record.manifest import FILE_NAME, ClusterNode, Manifest, read_manifest
from runner.record.schema import CsvColumn, Key, Outcome, RankRow, Row, columns, parse_row
from runner.record.shards import SHARDS, shards_of

_log = logging.getLogger(__name__)

# Later versions added columns, whose defaults stand for what was not recorded then.
OLDEST_SCHEMA = 2
# What columns of theirs are called now.
_RENAMED = {"peak_gpu_bytes": "peak_gpu_reserved_bytes"}

_KEY = list(Key._fields)
_RUNS = {
    "run": "string",
    "status": "string",
    "started": "datetime64[us, UTC]",
    "finished": "datetime64[us, UTC]",
    "rows": "Int64",
    "recorded": "Int64",
    "strategies": "string",
    "ranks": "Int64",
    "repeat": "Int64",
    "method": "string",
    "device": "string",
    "host": "string",
    "path": "string",
}


@dataclass(frozen=True)
class LeftOut:
    """A line of a table that is in no DataFrame, and why."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: left out: {self.reason}"


@dataclass(frozen=True)
class Run:
    """A whole run folder. `outcomes` and `ranks` have the columns of `runner.record.schema`."""

    path: Path
    manifest: Manifest
    outcomes: pd.DataFrame
    ranks: pd.DataFrame
    left_out: tuple[LeftOut, ...]


def read_run(run: Path) -> Run:
    """Everything of a run folder, finished or not; rows that cannot be used are in `left_out`.

    Raises UsageError when `run` is no run folder or of another schema version.
    """
    manifest = read_manifest(run, OLDEST_SCHEMA)
    if _is_cut(run):
        return _of_shards(run, manifest)
    outcome_rows, without_outcomes = _table(run / OUTCOMES, Outcome)
    rank_rows, without_ranks = _table(run / RANKS, RankRow)
    rank_rows, unfinished = _committed(run / RANKS, rank_rows, outcome_rows)
    left_out = (*without_outcomes, *without_ranks, *unfinished)
    return Run(run, manifest, outcome_rows, rank_rows, left_out)


def _is_cut(run: Path) -> bool:
    """Its shards have the same command, and are not cut again."""
    return (run / SHARDS).is_dir()


def _of_shards(run: Path, manifest: Manifest) -> Run:
    """All shards as one, whose `outcomes` have a column `node` more: the kind of node."""
    parts, left_out, nodes = list[Run](), list[LeftOut](), list[ClusterNode]()
    for shard in shards_of(run, manifest):
        if not (shard.folder / FILE_NAME).exists():
            continue  # it waits
        try:
            part = read_run(shard.folder)
        except UsageError as error:
            left_out.append(LeftOut(shard.folder / FILE_NAME, 1, f"a whole shard: {error}"))
            continue
        nodes += part.manifest.nodes
        left_out += part.left_out
        parts.append(replace(part, outcomes=_with_nodes(part.outcomes, part.manifest.nodes)))
    if not parts:
        empty = _with_nodes(_typed([], Outcome), ())
        return Run(run, manifest, empty, _typed([], RankRow), tuple(left_out))
    return Run(
        run,
        replace(manifest, nodes=tuple(nodes)),
        pd.concat([part.outcomes for part in parts], ignore_index=True),
        pd.concat([part.ranks for part in parts], ignore_index=True),
        tuple(left_out),
    )


def _with_nodes(table: pd.DataFrame, nodes: Sequence[ClusterNode]) -> pd.DataFrame:
    """Rows are in the order in which they were recorded: each is of the last node before it."""
    kinds = np.array([node.kind for node in nodes] or [""], dtype=object)
    firsts = [node.first for node in nodes] or [0]
    places = np.searchsorted(firsts, np.arange(len(table)), side="right") - 1
    return table.assign(node=pd.array(kinds[np.maximum(places, 0)], dtype="string"))


def outcomes(run: Path) -> pd.DataFrame:
    """outcomes.csv with declared dtypes: one row per instance, strategy and repeat.

    Rows that are cut off or damaged are left out and named in a warning. Raises UsageError when
    the file is not of this version.
    """
    if _is_cut(run):
        whole = read_run(run)
        return _warned((whole.outcomes, list(whole.left_out)))
    return _warned(_table(run / OUTCOMES, Outcome))


def ranks(run: Path) -> pd.DataFrame:
    """ranks.csv with declared dtypes: the rows of the questions that have an outcome.

    Otherwise as `outcomes`.
    """
    if _is_cut(run):
        whole = read_run(run)
        return _warned((whole.ranks, list(whole.left_out)))
    rows = _warned(_table(run / RANKS, RankRow))
    known, _ = _table(run / OUTCOMES, Outcome)
    return _warned(_committed(run / RANKS, rows, known))


def runs(folder: Path) -> pd.DataFrame:
    """The runs in a folder, oldest first, one row each; what cannot be read is warned of."""
    rows = []
    for file in sorted(folder.glob(f"[!.]*/{FILE_NAME}")):
        try:
            rows.append(_described(file.parent))
        except UsageError as error:
            _log.warning("%s", error)
    table = pd.DataFrame(rows, columns=list(_RUNS), dtype=object)
    return table.astype(_RUNS).sort_values("started", ignore_index=True)


def _described(run: Path) -> dict[str, Any]:
    manifest = read_manifest(run, OLDEST_SCHEMA)
    parts = [shard.folder for shard in shards_of(run, manifest)] if _is_cut(run) else [run]
    recorded = sum(len(_table(part / OUTCOMES, Outcome)[0]) for part in parts)
    return {
        "run": run.name,
        "status": manifest.status,
        "started": pd.Timestamp(manifest.started),
        "finished": pd.Timestamp(manifest.finished) if manifest.finished else pd.NaT,
        "rows": manifest.rows,
        "recorded": recorded,
        "strategies": ",".join(manifest.command.contenders),
        "ranks": manifest.command.ranks,
        "repeat": manifest.command.repeat,
        "method": manifest.command.method,
        "device": manifest.command.device,
        "host": manifest.host.get("name", ""),
        "path": str(run),
    }


def _warned(read: tuple[pd.DataFrame, list[LeftOut]]) -> pd.DataFrame:
    table, left_out = read
    for row in left_out:
        _log.warning("%s", row)
    return table


def _table(path: Path, row_type: type[Row]) -> tuple[pd.DataFrame, list[LeftOut]]:
    """Empty cells are NA in columns of numbers and stay empty in columns of text."""
    text = whole_lines(path)
    left_out = _cut_off(path, text)
    if not text:
        return _typed([], row_type), left_out
    table = _columns(path, text[: text.index("\n")], row_type)
    try:
        parsed = _parsed(text, table)
    except (ValueError, csv.Error):
        rows, damaged = _row_by_row(path, text, row_type, table)
        return _typed(rows, row_type), damaged + left_out
    return _completed(parsed, row_type), left_out


def _columns(path: Path, head: str, row_type: type[Row]) -> tuple[CsvColumn, ...]:
    """Those that the file has, in its order: an older version wrote fewer, and in another one."""
    names = [_RENAMED.get(name, name) for name in head.split(",")]
    known = {column.name: column for column in columns(row_type)}
    required = {field.name for field in fields(row_type) if field.default is MISSING}
    twice = len(names) != len(set(names))
    if twice or not required <= set(names) <= set(known):
        raise UsageError(f"{path}:1: these are not the columns of a run; start a new run")
    return tuple(known[name] for name in names)


def _completed(frame: pd.DataFrame, row_type: type[Row]) -> pd.DataFrame:
    """With the columns that the file does not have, and all of them in one order."""
    defaults = {field.name: field.default for field in fields(row_type)}
    missing = {
        column.name: pd.Series(defaults[column.name], index=frame.index, dtype=column.dtype())
        for column in columns(row_type)
        if column.name not in frame
    }
    return frame.assign(**missing)[[column.name for column in columns(row_type)]]


def _parsed(text: str, table: Sequence[CsvColumn]) -> pd.DataFrame:
    """All rows, column by column; raises ValueError or csv.Error when one of them is damaged."""
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))[1:]
    if len(rows) != text.count("\n") - 1 or any(len(row) != len(table) for row in rows):
        raise ValueError("a row of another shape")
    cells = zip(*rows, strict=True) if rows else [()] * len(table)
    return pd.DataFrame(
        {
            column.name: _values(column, of_column)
            for column, of_column in zip(table, cells, strict=True)
        }
    )


def _values(column: CsvColumn, cells: tuple[str, ...]) -> pd.Series[Any]:
    """A column's cells parsed, as `CsvColumn.parse` would one by one, which is slow for many."""
    if column.optional and not any(cells):
        return pd.Series(index=range(len(cells)), dtype=column.dtype())
    missing = [cell == "" for cell in cells] if column.optional and "" in cells else []
    if column.kind is float:
        filled = [cell or "nan" for cell in cells] if missing else cells
        return pd.Series(np.fromiter(map(float, filled), np.float64, len(cells)))
    if column.kind is int:
        filled = [cell or "0" for cell in cells] if missing else cells
        integers = np.fromiter(map(int, filled), np.int64, len(cells))
        mask = np.array(missing or np.zeros(len(cells)), dtype=bool)
        return pd.Series(pd.arrays.IntegerArray(integers, mask))
    for word in set(cells):
        column.parse(word)
    return pd.Series(cells, dtype=column.dtype())


def _row_by_row(
    path: Path, text: str, row_type: type[Row], table: Sequence[CsvColumn]
) -> tuple[list[list[Any]], list[LeftOut]]:
    """The rows that can be read, and the others with what is wrong with them."""
    rows, damaged = [], []
    for number, line in enumerate(text.split("\n")[1:-1], start=2):
        try:
            (cells,) = csv.reader([line], strict=True)
            row = parse_row(row_type, table, cells)
            rows.append([getattr(row, column.name) for column in columns(row_type)])
        except (ValueError, csv.Error) as error:
            damaged.append(LeftOut(path, number, str(error)))
    return rows, damaged


def _typed(rows: list[list[Any]], row_type: type[Row]) -> pd.DataFrame:
    dtypes = {column.name: column.dtype() for column in columns(row_type)}
    return pd.DataFrame(rows, columns=list(dtypes), dtype=object).astype(dtypes)


def _cut_off(path: Path, text: str) -> list[LeftOut]:
    """The start of a row at the end of the file, which the next append or resume completes."""
    if not path.exists() or path.stat().st_size <= len(text.encode()):
        return []
    return [LeftOut(path, text.count("\n") + 1, "the row is not complete")]


def _committed(
    path: Path, rank_rows: pd.DataFrame, outcome_rows: pd.DataFrame
) -> tuple[pd.DataFrame, list[LeftOut]]:
    """The rank rows of questions that have an outcome: its row is written last."""
    known = pd.MultiIndex.from_frame(outcome_rows[_KEY])
    has_outcome = pd.MultiIndex.from_frame(rank_rows[_KEY]).isin(known)
    unfinished = rank_rows[~has_outcome]
    if unfinished.empty:
        return rank_rows, []
    reason = f"{len(unfinished)} rank rows of questions without an outcome"
    return rank_rows[has_outcome].reset_index(drop=True), [
        LeftOut(path, int(unfinished.index[0]) + 2, reason)
    ]
