"""The experiment on attacks as a table."""

from __future__ import annotations

import pandas as pd

from runner.report.columns import CATEGORY, NETWORK, number
from runner.report.table import Column, Table
from runner.report.text import difference, ratio, seconds

_COLUMNS = (
    CATEGORY,
    NETWORK,
    Column("each has", "budget"),
    Column("attack", "attack"),
    number("instances", "instances"),
    number("violations", "found"),
    number("also pgd's", "also_by_pgd"),
    number("/ pgd", "of_pgd", ratio),
    number("median time to it", "median_found_s", seconds),
    number("median nearest", "median_nearest", difference),
    number("passes", "mean_passes"),
    number("went wrong", "trouble"),
)
_NOTE = (
    "Violations: instances with a counterexample that ONNX Runtime confirms. Time: of the "
    "processor, over those. Nearest: the least that a point missed a disjunct by; below 0 it is "
    "inside. Passes: of points, or rows of a bound, through the network and back. pgd: "
    "cross-entropy; cw: the margin; odi: what verifications begin with, each disjunct by itself "
    "from starts that are diversified; interval: pgd in three descents, between which points step "
    "along bounds of small boxes."
)


def attacks_table(frame: pd.DataFrame) -> Table:
    """Of a summary (runner.experiments.attacks_experiment); with what differs."""
    alike = {name for name in ("category", "budget") if frame[name].nunique() == 1}
    columns = tuple(column for column in _COLUMNS if column.source not in alike)
    budget = f": {frame['budget'].iloc[0]} each" if "budget" in alike else ""
    return Table("attacks", f"Attacks with equal budgets{budget}", columns, frame, _NOTE)
