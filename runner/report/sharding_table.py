"""What sharding buys on trained networks, as a table."""

from __future__ import annotations

import pandas as pd

from runner.report.columns import number
from runner.report.table import Column, Table
from runner.report.text import difference, ratio, seconds, size

_COLUMNS = (
    Column("bounds", "bounds_method"),
    Column("trained by", "method"),
    number("radius", "radius", lambda value: f"{value:g}"),
    Column("strategy", "strategy"),
    number("P", "ranks"),
    number("questions", "questions"),
    number("rows of A", "rows"),
    number("resting weights", "weight_bytes", size),
    number("peak", "peak_tensor_bytes", size),
    number("peak / baseline", "peak_tensor_bytes_of_baseline", ratio),
    number("peak A", "peak_a_bytes", size),
    number("A / baseline", "peak_a_bytes_of_baseline", ratio),
    number("peak α", "peak_alpha_bytes", size),
    number("sent per rank", "comm_bytes", size),
    number("greatest relative difference", "greatest_relative", difference),
    number("CPU time", "cpu_s", seconds),
)
_NOTE = (
    "The bounds of every question, whatever they prove: under each strategy the same work. Means "
    "over questions. Bytes: live tensors of the worst rank; A and α each at its own peak. Rows of "
    "A: that bounds were propagated backwards for, of all start nodes. Sent: mean of the ranks. "
    "Difference: of any bound to baseline's. CPU time: of the slowest rank, from loading on."
)


def sharding_table(name: str, frame: pd.DataFrame) -> Table:
    """Of a summary (runner.experiments.sharding_experiment); with what differs or is not 0."""
    alike = {key for key in ("bounds_method", "radius") if frame[key].nunique() == 1}
    nothing = {"peak_alpha_bytes"} if not frame["peak_alpha_bytes"].any() else set()
    columns = tuple(c for c in _COLUMNS if c.source not in alike | nothing)
    said = [f"{'radius ' if key == 'radius' else ''}{frame[key].iloc[0]}" for key in sorted(alike)]
    title = f"Sharding trained networks: {name}" + (f" ({', '.join(said)})" if said else "")
    return Table("sharding", title, columns, frame, _NOTE)


def short(table: Table) -> Table:
    """What fits a terminal."""
    left_out = {"questions", "weight_bytes", "peak_alpha_bytes", "greatest_relative", "cpu_s"}
    shown = tuple(column for column in table.columns if column.source not in left_out)
    return Table(table.name, table.title, shown, table.frame, table.note)
