"""What `list --load` shows: a bar, a table by category, what does not work and why, a CSV file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from runner.contract.whole import replace_file
from runner.execute.executor import Executor
from runner.problem.instances import Row
from runner.report.grid import Grid
from runner.report.render import rich_table
from runner.report.text import ABSENT, difference, seconds
from runner.run.loading import Loaded, load_rows


def load_with_bar(
    rows: Sequence[Row], executor: Executor, folder: Path, out: Console
) -> list[Loaded]:
    """As `load_rows`, with a bar on a terminal."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    told = TextColumn("{task.description}", markup=False)
    with Progress(*columns, told, console=out, disable=not out.is_terminal) as bar:
        line = bar.add_task("", total=len(rows))

        def begins(name: str) -> None:
            bar.update(line, description=name)

        done = []
        for loaded in load_rows(rows, executor, folder, begins):
            bar.advance(line)
            done.append(loaded)
        return done


def print_loaded(rows: Sequence[Loaded], out: Console) -> None:
    """The table, then each reason once, with the rows that it is of."""
    out.print(rich_table(_grid(rows)))
    reasons = Counter((row.cause, row.message) for row in rows if row.cause)
    for (cause, message), count in reasons.items():
        of = f" ({count} rows)" if count > 1 else ""
        out.print(Text(f"{cause}: {message}{of}", style="red"), soft_wrap=True)


def write_loaded(path: Path, rows: Sequence[Loaded]) -> None:
    """A line of CSV for each row of the categories."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Loaded)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, rows))
    replace_file(path, text.getvalue())


def _grid(rows: Sequence[Loaded]) -> Grid:
    by_category: dict[str, list[Loaded]] = {}
    for row in rows:
        by_category.setdefault(row.category, []).append(row)
    return Grid(
        title="",
        head=("category", "networks", "load", "instances", "fit", "slowest", "greatest difference"),
        numbers=(False, True, True, True, True, True, True),
        rows=tuple(_cells(category, of) for category, of in by_category.items()),
        red=frozenset(
            index for index, of in enumerate(by_category.values()) if any(row.cause for row in of)
        ),
    )


def _cells(category: str, rows: Sequence[Loaded]) -> tuple[str, ...]:
    loaded = {row.network for row in rows if row.inputs is not None}
    times = [row.load_s for row in rows if row.load_s is not None]
    differences = [row.difference for row in rows if row.difference is not None]
    return (
        category,
        f"{len({row.network for row in rows})}",
        f"{len(loaded)}",
        f"{len(rows)}",
        f"{sum(not row.cause for row in rows)}",
        seconds(max(times)) if times else ABSENT,
        difference(max(differences)) if differences else ABSENT,
    )
