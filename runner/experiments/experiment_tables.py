"""The table of each kind of experiment: its columns, and what it does not show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from runner.contract.vocabulary import Cause
from runner.report.columns import number, of_kinds
from runner.report.grid import Grid
from runner.report.table import Column, Table, transposed
from runner.report.text import difference, ratio, seconds, share, size


def _bound(value: float) -> str:
    return f"{value:,.4f}"


_WHO = (
    Column("network", "network", lambda name: str(name).removeprefix("onnx/").split(".onnx")[0]),
    Column("method", "method"),
    Column("strategy", "strategy"),
    number("P", "ranks"),
)
_TIME = number("time", "incomplete_s", seconds)
_PEAK = (
    number("peak", "peak_tensor_bytes", size),
    number("/ baseline", "peak_tensor_bytes_ratio", ratio),
)
# Of the greater of a neuron's bounds and 1: those of deep wide networks are in the thousands.
_DIFFERENCE = number("greatest relative difference", "greatest_relative", difference)
_TRAFFIC = (
    number("sent per rank", "comm_bytes", size),
    number("in collectives", "comm_s", seconds),
)
_UNSOLVED = Column("went wrong", "trouble")

COLUMNS: dict[str, tuple[Column, ...]] = {
    "memory": (
        *_WHO,
        number("resting weights", "weight_bytes", size),
        *_PEAK,
        *of_kinds("peak", "peak {}", ("weights", "A", "α", "bounds", "other")),
        _DIFFERENCE,
        _TIME,
        *_TRAFFIC,
        _UNSOLVED,
    ),
    "tightness": (
        *_WHO,
        number("worst lower bound", "worst_spec", _bound),
        number("greatest loss", "spec_lost", difference),
        number("mean loss", "spec_mean_lost", difference),
        number("greatest difference of any bound", "greatest_difference", difference),
        number("relative", "greatest_relative", difference),
        _TIME,
        _UNSOLVED,
    ),
    "scaling": (
        *_WHO,
        _TIME,
        number("speed-up", "speedup", ratio),
        number("efficiency", "efficiency", share),
        number("CPU time", "cpu_s", seconds),
        *_TRAFFIC,
        number("formula", "formula_bytes", size),
        number("sent / formula", "formula_ratio", ratio),
        _UNSOLVED,
    ),
    "weak-scaling": (
        *_WHO,
        _TIME,
        number("efficiency", "weak_efficiency", share),
        *_TRAFFIC,
        _UNSOLVED,
    ),
    "alpha": (
        *_WHO,
        number("weights", "weight_bytes", size),
        *of_kinds("peak", "peak {}", ("A", "α")),
        number("A + α / baseline", "kept_bytes_ratio", ratio),
        number("α at the end (lirpa)", "alpha_bytes", size),
        *_PEAK,
        number("worst lower bound", "worst_spec", _bound),
        _TIME,
        _UNSOLVED,
    ),
    "search": (
        *_WHO,
        *of_kinds("peak", "peak {}"),
        number("α + β / baseline", "multiplier_bytes_ratio", ratio),
        *_PEAK,
        number("rounds", "rounds"),
        number("domains", "domains"),
        number("domains/s", "domains_per_s"),
        number("speed-up", "domains_per_s_ratio", ratio),
        number("search", "complete_s", seconds),
        number("CPU time", "cpu_s", seconds),
        *_TRAFFIC,
        number("lower bound", "lower_bound", _bound),
        _UNSOLVED,
    ),
}
_METERS_OF_RANKS = "Bytes: live tensors of the worst rank; each kind at its own peak."
_METERS = (
    f"{_METERS_OF_RANKS} Time: of bounding alone, the slowest rank. Traffic: mean of the ranks."
)
NOTES = {
    "memory": f"{_METERS} Differences: of any lower or upper bound of any node, to baseline's.",
    "tightness": (
        "Loss: how far a lower bound of a spec lies below baseline's; negative is tighter."
    ),
    "scaling": (
        f"{_METERS} Speed-up: against baseline on the same network. Formula: the leading terms "
        "of what is sent, from the shapes alone. CPU time: of the slowest rank, loading included."
    ),
    "weak-scaling": (
        f"{_METERS} Efficiency: the time of baseline on the first network by the time on a "
        "network with P times its work (CROWN's work grows with the cube of the width)."
    ),
    "search": (
        "The same rounds and batches under every strategy, without attack or early stop. "
        f"{_METERS_OF_RANKS} Rounds: the root's and those asked for. Domains: of all ranks. "
        "Search: branch and bound alone, the slowest rank. CPU time: of the slowest rank, from "
        "loading on. Traffic: likewise, mean of the ranks."
    ),
    "alpha": (
        f"{_METERS} lirpa's A and α cannot be told apart while it runs: only its total peak, and "
        "the α tensors that it holds at the end."
    ),
}


# An experiment decides nothing, and is not meant to.
_EXPECTED = frozenset({Cause.INCOMPLETE, Cause.FIXED_WORKLOAD})


def table(kind: str, frame: pd.DataFrame) -> Table:
    """The table of `measurements`; columns that nothing has a value for are left out."""
    frame = frame.copy()
    frame["trouble"] = [
        "" if row["cause"] in _EXPECTED else f"{row['cause']} {row['message']}".strip()
        for row in frame.to_dict("records")
    ]
    if "formula_bytes" in frame:
        sent = frame["formula_bytes"].where(frame["formula_bytes"] > 0)
        frame["formula_ratio"] = frame["comm_bytes"] / sent
    if kind == "weak-scaling":
        first = frame[frame["ranks"] == 1].groupby("method")["incomplete_s"].first()
        frame["weak_efficiency"] = frame["method"].map(first) / frame["incomplete_s"]
    _only_of_the_driver(frame)
    shown = [column for column in COLUMNS[kind] if column.source in frame]
    return Table(
        name=kind,
        title=f"experiment {kind}",
        columns=tuple(column for column in shown if _says_something(frame[column.source])),
        frame=frame,
        note=NOTES[kind],
    )


def side_by_side(made: Table) -> Iterator[Grid]:
    """For each network and method a grid with a column per strategy: it fits a terminal."""
    for (_, method), frame in made.frame.groupby(["network", "method"], sort=False):
        contenders = frame["strategy"] + " P=" + frame["ranks"].astype(str)
        network = _WHO[0].written(frame["network"].iloc[0])
        part = made.part(frame.assign(contender=contenders), f"{network}, {method}")
        yield transposed(replace(part, note=""), "contender", [column.source for column in _WHO])


def _only_of_the_driver(frame: pd.DataFrame) -> None:
    """auto_LiRPA tags nothing: all it makes counts as `other`."""
    for column in ("peak_a_bytes", "peak_alpha_bytes", "peak_bounds_bytes", "kept_bytes_ratio"):
        frame[column] = frame[column].where(frame["strategy"] != "lirpa")


def _says_something(values: pd.Series[Any]) -> bool:
    return bool(values.notna().any()) and bool((values.astype(str) != "").any())
