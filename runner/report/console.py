"""The summary and the instances of a run as rich tables and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import pandas as pd
from rich.table import Table
from rich.text import Text

from runner.report.text import ABSENT, ratio, seconds, share, size
from runner.report.words import VERDICT_STYLES
from runner.vocabulary import Verdict

LEGEND = (
    "PAR-2: mean run time, where an instance that is not solved counts twice its timeout. "
    "Memory: live tensor bytes of one rank, read with the meter named. Against baseline: "
    "geometric means over the instances that both ran to an end; speed above 1 is faster, "
    "memory below 1 is less."
)


class _Line(NamedTuple):
    """One line of the summary: its name, the column it shows, and how."""

    title: str
    source: str
    text: Callable[[float], str] = str


_SUMMARY = (
    _Line("instances", "instances"),
    *(_Line(str(verdict), str(verdict)) for verdict in Verdict),
    _Line("PAR-2", "par2_s", seconds),
    _Line("median run time", "median_run_s", seconds),
    _Line("peak memory per rank, median", "peak_tensor_median_bytes", size),
    _Line("peak memory per rank, greatest", "peak_tensor_max_bytes", size),
    _Line("resting weights per rank, greatest", "weight_max_bytes", size),
    _Line("meter", "meter"),
    _Line("speed / baseline", "speed_ratio", ratio),
    _Line("peak memory / baseline", "memory_ratio", ratio),
    _Line("resting weights / baseline", "weight_ratio", ratio),
    _Line("instances compared", "compared"),
    _Line("time in collectives", "comm_s", seconds),
    _Line("share of time in collectives", "comm_share", share),
)


def summary_table(summary: pd.DataFrame, title: str | None = None) -> Table:
    """A column per row of `summary`, as `runner.report.summary.summary` gives it."""
    table = Table("", title=title, title_justify="left")
    for strategy in summary["strategy"]:
        table.add_column(Text(strategy), justify="right")
    for line in _lines(summary):
        table.add_row(*map(Text, line))
    return table


def instance_table(outcomes: pd.DataFrame) -> Table:
    """One line per instance: verdict, cause and run time under each strategy."""
    table = Table()
    for title in ("category", "network", "property"):
        table.add_column(title, overflow="fold")
    strategies = list(outcomes["strategy"].unique())
    for strategy in strategies:
        table.add_column(Text(strategy))
    instance = ["category", "network", "property", "timeout_s"]
    for names, rows in outcomes.groupby(instance, sort=False, dropna=False):
        said = {row["strategy"]: _said(row) for row in rows.to_dict("records")}
        shown = [Text(str(name)) for name in names[:3]]
        table.add_row(*shown, *(said.get(strategy, Text(ABSENT)) for strategy in strategies))
    return table


def markdown(summary: pd.DataFrame) -> str:
    """What `summary_table` shows, as a Markdown table."""
    head = ["", *summary["strategy"]]
    rule = ["---", *("---:" for _ in summary["strategy"])]
    lines = [head, rule, *_lines(summary)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _lines(summary: pd.DataFrame) -> list[list[str]]:
    return [[line.title, *map(line.text, summary[line.source])] for line in _SUMMARY]


def _said(row: Mapping[Hashable, Any]) -> Text:
    verdict = Verdict(row["verdict"])
    said = Text(str(verdict), style=VERDICT_STYLES[verdict])
    if row["cause"]:
        said.append(f" {row['cause']}")
    if row["late_answer"]:
        said.append(f" (late: {row['late_answer']})")
    if pd.notna(row["run_time_s"]):
        said.append(f" {seconds(row['run_time_s'])}", style="dim")
    return said
