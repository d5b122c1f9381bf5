"""One quantity of every instance, under each strategy against baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from runner.report.gather import QUESTION, Evidence
from runner.report.plots.style import looks, panels

_ACROSS = {1: 1, 2: 2, 4: 2}  # panels in a row, by their number; else 3
_HEIGHTS = {1: 3.4, 2: 2.7, 3: 1.9}  # inches, by the number of panels in a row


@dataclass(frozen=True)
class Quantity:
    """`values`: what is drawn; `missed`: the rows whose value only bounds it or is cut short;
    `comparable`: of rows put side by side, which may be drawn; `axis` formats an axis.
    """

    name: str
    values: Callable[[pd.DataFrame], pd.Series[float]]
    missed: Callable[[pd.DataFrame], pd.Series[bool]]
    comparable: Callable[[pd.DataFrame], pd.Series[bool]]
    axis: Callable[[Axis], None]
    base: int  # of the logarithmic scales


def against_baseline_plot(
    evidence: Evidence, quantity: Quantity, limit: float | None
) -> Figure | None:
    """A panel per label that has a baseline; `limit` draws the lines of what was not finished."""
    paired = {label: _pairs(evidence, label, quantity) for label in evidence.labels}
    shown = {label: pairs for label, pairs in paired.items() if len(pairs)}
    if not shown:
        return None
    across = _ACROSS.get(len(shown), 3)
    figure, axes = panels(len(shown), _HEIGHTS[across], across)
    values = pd.concat([pairs[side] for pairs in shown.values() for side in ("x", "y")])
    ends = (values.min() * 0.7, max(values.max(), limit or 0) * 1.4)
    styles = looks(evidence.labels)
    for place, (panel, (label, pairs)) in enumerate(zip(axes, shown.items(), strict=True)):
        _diagonal(panel, ends, limit)
        for missed, marker in ((False, styles[label].marker), (True, "x")):
            part = pairs[pairs["missed"] == missed]
            panel.scatter(
                part["x"],
                part["y"],
                s=16,
                marker=marker,
                color=styles[label].colour,
                alpha=0.75,
                linewidths=0.9 if missed else 0,
                rasterized=len(pairs) > 500,
                clip_on=False,
            )
        panel.set_xscale("log", base=quantity.base)
        panel.set_yscale("log", base=quantity.base)
        panel.set(xlim=ends, ylim=ends, aspect="equal")
        panel.set_title(label)
        panel.set_xlabel(evidence.baselines[label])
        if place % across == 0:
            panel.set_ylabel(quantity.name)
        for axis, ticks in ((panel.xaxis, 6 // across), (panel.yaxis, 4)):
            axis.set_major_locator(LogLocator(quantity.base, numticks=ticks))
            quantity.axis(axis)
    return figure


def _pairs(evidence: Evidence, label: str, quantity: Quantity) -> pd.DataFrame:
    """Columns x (baseline), y, missed; one row per instance that both ran."""
    baseline = evidence.baselines.get(label)
    if baseline in (None, label):
        return pd.DataFrame({"x": [], "y": [], "missed": []})
    sides = []
    for name in (baseline, label):
        rows = evidence.outcomes[evidence.outcomes["label"] == name]
        sides.append(
            rows[QUESTION].assign(
                value=quantity.values(rows), missed=quantity.missed(rows), meter=rows["meter"]
            )
        )
    both = sides[0].merge(sides[1], on=QUESTION, suffixes=("_x", "_y"))
    both = both[(both["value_x"] > 0) & (both["value_y"] > 0) & quantity.comparable(both)]
    return pd.DataFrame(
        {
            "x": both["value_x"],
            "y": both["value_y"],
            "missed": both["missed_x"] | both["missed_y"],
        }
    )


def _diagonal(panel: Axes, ends: tuple[float, float], limit: float | None) -> None:
    panel.plot(ends, ends, color="#666666", linewidth=0.9)
    if limit is not None:
        panel.axhline(limit, color="#666666", linewidth=0.9, linestyle=":")
        panel.axvline(limit, color="#666666", linewidth=0.9, linestyle=":")
