"""The tables of a report: their columns, titles and notes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from runner.contract.vocabulary import Verdict
from runner.report.balance import balance
from runner.report.causes import causes
from runner.report.columns import CATEGORY, NETWORK, PROPERTY, number, short_name
from runner.report.gather import NODE, Evidence
from runner.report.grid import Grid
from runner.report.instance_rows import instances
from runner.report.strategy_rows import strategies
from runner.report.table import Column, Table, transposed
from runner.report.text import ABSENT, difference, ratio, seconds, share, size

_STRATEGIES = (
    CATEGORY,
    Column("strategy", "strategy"),
    number("ranks", "ranks"),
    number("instances", "instances"),
    number("solved", "solved"),
    *(number(str(verdict), str(verdict)) for verdict in Verdict),
    number("VNN-COMP score", "score"),
    number("instances compared", "compared"),
    number("speed / baseline", "speed_ratio", ratio),
    number("peak memory / baseline", "memory_ratio", ratio),
    number("resting weights / baseline", "weight_ratio", ratio),
    number("PAR-2", "par2_s", seconds),
    number("median run time", "median_run_s", seconds),
    number("total run time", "total_run_s", seconds),
    number("domains/s, median", "domains_per_s_median"),
    number("domains in all", "domains_total"),
    number("greatest difference of bounds", "bound_difference", difference),
    number("peak memory per rank, median", "peak_tensor_median_bytes", size),
    number("peak memory per rank, greatest", "peak_tensor_max_bytes", size),
    number("resting weights per rank, greatest", "weight_max_bytes", size),
    number("time in collectives", "comm_s", seconds),
    number("share of time in collectives", "comm_share", share),
    Column("meter", "meter"),
)
_SHORT = {
    "category": "category", "strategy": "strategy", "instances": "instances", "solved": "solved",
    "score": "score", "compared": "compared", "speed_ratio": "speed", "memory_ratio": "memory",
    "weight_ratio": "weights", "peak_tensor_max_bytes": "greatest peak",
}  # fmt: skip
_STRATEGIES_NOTE = (
    "PAR-2: mean run time, where an instance that is not solved counts twice its timeout. "
    "Memory: live tensor bytes of one rank, read with the meter named. "
    "Against baseline: geometric means over the instances compared, which all strategies ran to "
    "an end; speed above 1 is faster, memory below 1 is less. "
    "Score: VNN-COMP points; `vnncomp-runner score` replays the counterexamples too."
)
_OF_SEARCHES = frozenset({"domains_per_s_median", "domains_total"})
_DOMAINS_NOTE = (
    "Domains: sub-problems that branch and bound bounded, where it ran; the bound it ends with "
    "depends on its order too."
)


def strategies_table(evidence: Evidence, by_category: bool = True) -> Table:
    frame = strategies(evidence, by_category)
    searched = bool(frame["domains_total"].notna().any())
    return Table(
        name="strategies",
        title="Strategies",
        columns=tuple(c for c in _STRATEGIES if searched or c.source not in _OF_SEARCHES),
        frame=frame,
        note=f"{_STRATEGIES_NOTE} {_DOMAINS_NOTE}" if searched else _STRATEGIES_NOTE,
    )


def side_by_side(table: Table) -> list[Grid]:
    """The strategies table as a grid for each category with a column per strategy."""
    parts = [
        replace(table, title=f"{table.title}: {category}", frame=frame, note="")
        for category, frame in table.frame.groupby("category", sort=False)
    ]
    parts[-1] = replace(parts[-1], note=table.note)
    return [transposed(part, "strategy", ("category",)) for part in parts]


def short(table: Table) -> Table:
    """The strategies table with the columns that fit a terminal."""
    chosen = tuple(
        replace(column, title=_SHORT[column.source])
        for column in table.columns
        if column.source in _SHORT
    )
    return Table(table.name, "By category", chosen, table.frame)


def instances_table(evidence: Evidence) -> Table:
    frame = instances(evidence)
    columns = [
        CATEGORY,
        NETWORK,
        PROPERTY,
        number("timeout", "timeout_s", "{:g} s".format),
    ]
    if NODE in frame and frame[NODE].nunique() > 1:
        columns.append(Column("node", NODE))
    rows = frame.to_dict("records")
    for label in evidence.labels:
        cells = [_answer(row, label) for row in rows]
        frame[f"{label}: answer"] = pd.array(cells, dtype="string")
        columns.append(Column(label, f"{label}: answer", sort=f"{label}: run_time_s"))
    disagreeing = int(frame["disagree"].sum())
    note = "No two strategies contradict each other."
    if disagreeing:
        instances_are = "instance is" if disagreeing == 1 else "instances are"
        note = (
            f"{disagreeing} {instances_are} sat under one strategy and unsat under another: "
            "one of the answers is wrong."
        )
    return Table("instances", "Instances", tuple(columns), frame, note, alarm="disagree")


def disagreements(table: Table) -> Table:
    """The rows of the instances table that cannot all be right."""
    return table.part(table.frame[table.frame["disagree"]], "Disagreements")


def ranks_table(evidence: Evidence) -> Table:
    return Table(
        name="ranks",
        title="Balance of the ranks",
        columns=(
            CATEGORY,
            Column("strategy", "strategy"),
            number("ranks", "ranks"),
            number("instances", "instances"),
            number("busy", "busy_median", ratio),
            number("busy, worst", "busy_worst", ratio),
            number("memory", "memory_median", ratio),
            number("memory, worst", "memory_worst", ratio),
            number("weights, worst", "weight_worst", ratio),
            number("sent", "comm_bytes", size),
            number("collectives", "collectives"),
        ),
        frame=balance(evidence),
        note=(
            "Greatest of the ranks / their mean, median and worst over instances: 1 is even. "
            "Busy: time outside collectives. Sent and collectives: mean of a rank and instance."
        ),
    )


def causes_table(evidence: Evidence) -> Table:
    return Table(
        name="causes",
        title="What was not decided, and why",
        columns=(
            Column("strategy", "strategy"),
            Column("verdict", "verdict"),
            Column("cause", "cause"),
            number("instances", "instances"),
            Column("for example", "property", short_name),
            Column("of network", "network", short_name),
            Column("message", "message"),
        ),
        frame=causes(evidence),
    )


def _answer(row: Mapping[Hashable, Any], label: str) -> str:
    verdict = row[f"{label}: verdict"]
    if pd.isna(verdict):
        return ABSENT
    parts = [str(verdict)]
    if pd.notna(row[f"{label}: run_time_s"]):
        parts.append(seconds(row[f"{label}: run_time_s"]))
    if row[f"{label}: cause"]:
        parts.append(str(row[f"{label}: cause"]))
    if row[f"{label}: late_answer"]:
        parts.append(f"(late: {row[f'{label}: late_answer']})")
    return " ".join(parts)
