"""Plots of memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report.columns import KINDS
from runner.report.gather import ENDED, Evidence
from runner.report.plots.scatter import Quantity, against_baseline_plot
from runner.report.plots.style import HATCHES, bytes_axis, legend_above, panels
from runner.report.strategy_rows import floats

# From dark to light, so that the stack reads in grey too.
_COLOURS = ("#333333", "#0072b2", "#d55e00", "#009e73", "#56b4e9", "#e0e0e0")


def memory_scatter(evidence: Evidence) -> Figure | None:
    """Peak tensor bytes of the greatest rank against baseline."""

    def values(rows: pd.DataFrame) -> pd.Series[float]:
        return floats(rows["peak_tensor_bytes"])

    def missed(rows: pd.DataFrame) -> pd.Series[bool]:
        return ~rows["verdict"].isin(ENDED)

    def same_meter(both: pd.DataFrame) -> pd.Series[bool]:
        return both["meter_x"] == both["meter_y"]

    quantity = Quantity("peak memory", values, missed, same_meter, bytes_axis, base=2)
    return against_baseline_plot(evidence, quantity, limit=None)


def memory_by_kind(evidence: Evidence) -> Figure | None:
    """Bytes of each kind at a rank's peak, stacked: a bar per label and rank, a panel per category.

    Means add up, as the kinds do at the peak: a bar is as long as the mean peak.
    """
    columns = {name: f"at_peak_{kind}_bytes" for name, kind in KINDS.items()}
    measured = evidence.ranks.dropna(subset=list(columns.values()))
    categories = [name for name in evidence.categories if (measured["category"] == name).any()]
    if not categories:
        return None
    places = {label: place for place, label in enumerate(evidence.labels)}
    bars = measured.groupby(["label", "rank"]).ngroups
    figure, axes = panels(len(categories), height=1.0 + 0.19 * bars, across=2)
    for panel, category in zip(axes, categories, strict=True):
        rows = measured[measured["category"] == category]
        sizes = rows[["label", "rank"]].assign(
            **{name: floats(rows[column]) for name, column in columns.items()}
        )
        means = sizes.groupby(["label", "rank"]).mean()
        order = sorted(means.index, key=lambda bar: (places[bar[0]], bar[1]))
        means = means.loc[order]
        names = [f"{label}, rank {rank}" for label, rank in order]
        left = np.zeros(len(names))
        for name, colour, hatch in zip(KINDS, _COLOURS, HATCHES, strict=True):
            widths = means[name].to_numpy()
            panel.barh(
                names, widths, left=left, color=colour, hatch=hatch, edgecolor="white", label=name
            )
            left += widths
        panel.invert_yaxis()
        panel.grid(axis="y", visible=False)
        panel.set_title(category)
        panel.set_xlim(left=0)
        bytes_axis(panel.xaxis)
    legend_above(figure, axes[0], columns=6)
    return figure
