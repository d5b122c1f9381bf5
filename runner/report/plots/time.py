"""Plots of run time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from runner.contract.vocabulary import Phase
from runner.report.gather import QUESTION, SOLVED, Evidence
from runner.report.plots.scatter import Quantity, against_baseline_plot
from runner.report.plots.style import (
    HATCHES,
    legend_above,
    looks,
    panels,
    seconds_axis,
)
from runner.report.strategy_rows import against_baseline, geometric_mean

# From light to dark, so that the stack reads in grey too.
_PHASE_COLOURS = ("#f0e442", "#56b4e9", "#d55e00", "#005b8e")


def cactus(evidence: Evidence) -> Figure | None:
    """Solved instances over run time, one step line per label."""
    solved = evidence.outcomes[evidence.outcomes["verdict"].isin(SOLVED)]
    if solved.empty:
        return None
    figure, (panel,) = panels(1, height=3.4)
    latest = max(float(evidence.outcomes["run_time_s"].max()), 1e-3)
    for label, look in looks(evidence.labels).items():
        times = np.sort(solved.loc[solved["label"] == label, "run_time_s"].to_numpy())
        panel.step(
            [*times, latest],
            [*range(1, len(times) + 1), len(times)],
            where="post",
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker,
            markersize=4,
            markevery=max(1, len(times) // 12),
            label=f"{label} ({len(times)})",
        )
    panel.set(xscale="log", xlabel="run time of an instance", ylabel="instances solved")
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    seconds_axis(panel.xaxis)
    legend_above(figure, panel)
    return figure


def time_scatter(evidence: Evidence) -> Figure | None:
    """Run times against baseline; what was not solved lies at the timeout."""
    timeouts = evidence.outcomes["timeout_s"]
    limit = float(timeouts.max()) if timeouts.nunique() == 1 else None

    def missed(rows: pd.DataFrame) -> pd.Series[bool]:
        return ~rows["verdict"].isin(SOLVED)

    def values(rows: pd.DataFrame) -> pd.Series[float]:
        return rows["run_time_s"].where(~missed(rows), rows["timeout_s"])

    def solved_once(both: pd.DataFrame) -> pd.Series[bool]:
        return ~(both["missed_x"] & both["missed_y"])

    quantity = Quantity("run time", values, missed, solved_once, seconds_axis, base=10)
    return against_baseline_plot(evidence, quantity, limit)


def phases(evidence: Evidence) -> Figure | None:
    """Seconds of an instance by phase, one bar per label."""
    shared = against_baseline(evidence)[["label", *QUESTION]]
    if shared.empty:
        shared = evidence.outcomes[["label", *QUESTION]]
    ranks = evidence.ranks.merge(shared, on=["label", *QUESTION])
    columns = [f"{phase}_s" for phase in Phase]
    # A phase that an instance did not come to took it no time.
    spent = ranks[ranks["wall_s"].notna()].fillna(dict.fromkeys([*columns, "comm_s"], 0.0))
    means = spent.groupby("label")[[*columns, "wall_s", "comm_s"]].mean()
    labels = [label for label in evidence.labels if label in means.index]
    if not labels:
        return None
    means = means.loc[labels]
    figure, (panel,) = panels(1, height=1.1 + 0.36 * len(labels))
    left = np.zeros(len(labels))
    stack = [*zip(Phase, columns, _PHASE_COLOURS, HATCHES, strict=False)]
    for phase, column, colour, hatch in stack:
        widths = means[column].to_numpy()
        panel.barh(
            labels, widths, left=left, color=colour, hatch=hatch, edgecolor="white", label=phase
        )
        left += widths
    rest = np.clip(means["wall_s"].to_numpy() - left, 0, None)
    panel.barh(labels, rest, left=left, color="#bbbbbb", edgecolor="white", label="other")
    panel.barh(labels, means["comm_s"], height=0.14, color="black", label="in collectives")
    panel.invert_yaxis()
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("mean time of an instance")
    seconds_axis(panel.xaxis)
    legend_above(figure, panel, columns=3)
    return figure


def speed_up(evidence: Evidence) -> Figure | None:
    """Speed over baseline by number of ranks: a line per strategy, and the ideal."""
    pairs = against_baseline(evidence)
    parallel = [
        label
        for label in evidence.labels
        if label in evidence.baselines and label != evidence.baselines[label]
    ]
    points: dict[str, list[tuple[int, float]]] = {}
    for label in parallel:
        rows = pairs[pairs["label"] == label]
        speed = geometric_mean(rows["run_time_s_baseline"] / rows["run_time_s"])
        contender = evidence.contenders[label]
        if np.isfinite(speed):
            points.setdefault(contender.strategy, []).append((contender.ranks, speed))
    if not points:
        return None
    figure, (panel,) = panels(1, height=3.2)
    most = max(ranks for line in points.values() for ranks, _ in line)
    ideal = [1, max(most, 2)]
    panel.plot(ideal, ideal, color="#666666", linestyle=":", label="ideal")
    panel.axhline(1, color="black", linewidth=0.9, label="baseline")
    names = [evidence.contenders[label].strategy for label in evidence.labels]
    for strategy, look in looks(list(dict.fromkeys(names))).items():
        if strategy in points:
            panel.plot(
                *zip(*sorted(points[strategy]), strict=True),
                color=look.colour,
                linestyle=look.dash,
                marker=look.marker,
                label=strategy,
            )
    panel.set(xlabel="ranks P", ylabel="speed / baseline")
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, panel, columns=5)
    return figure
