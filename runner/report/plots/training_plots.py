"""Plots that compare training methods, of a summary (runner.experiments.training_experiment)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from runner.report.plots.style import Look, legend_above, looks, panels, seconds_axis


@dataclass(frozen=True)
class TrainingPlot:
    """`draw` is given a row for each method, radius and strategy."""

    name: str
    title: str
    note: str
    draw: Callable[[pd.DataFrame], Figure]


def over_radius(frame: pd.DataFrame) -> Figure:
    """Stable ReLUs and proved instances: a line for each method."""
    frame = _first_strategy(frame)
    figure, axes = panels(2, height=3.0, across=2)
    for panel, (source, title) in zip(
        axes, (("stable", "stable ReLUs"), ("unsat", "unsat")), strict=True
    ):
        for method, look in _looks(frame).items():
            rows = frame[frame["method"] == method].sort_values("radius")
            panel.plot(
                rows["radius"],
                rows[source],
                color=look.colour,
                linestyle=look.dash,
                marker=look.marker,
                markersize=4,
                label=method,
            )
        panel.set(xlabel="L∞ radius", ylabel=title, ylim=(0, 1.02))
        panel.yaxis.set_major_formatter(PercentFormatter(1))
    legend_above(figure, axes[0])
    return figure


def time_against_accuracy(frame: pd.DataFrame) -> Figure:
    """A panel for each radius, a mark for each method: up and to the left is better."""
    frame = _first_strategy(frame)
    radii = sorted(frame["radius"].unique())
    figure, axes = panels(len(radii), height=2.6, across=2)
    for panel, radius in zip(axes, radii, strict=True):
        for method, look in _looks(frame).items():
            rows = frame[(frame["method"] == method) & (frame["radius"] == radius)]
            panel.scatter(
                rows["mean_s"],
                rows["clean_accuracy"],
                color=look.colour,
                marker=look.marker,
                label=method,
            )
        panel.set(xscale="log", title=f"radius {radius:g}", ylabel="accuracy")
        panel.set_xlabel("mean time of verification")
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        seconds_axis(panel.xaxis)
    legend_above(figure, axes[0])
    return figure


PLOTS = (
    TrainingPlot(
        "over_radius",
        "Stable ReLUs and proofs over the radius",
        "Stable: the sign is proved by CROWN. Unsat: of the instances that a network has.",
        over_radius,
    ),
    TrainingPlot(
        "time_against_accuracy",
        "Time of verification against accuracy",
        "Up and to the left is better. What was not decided counts with its time limit.",
        time_against_accuracy,
    ),
)


def _first_strategy(frame: pd.DataFrame) -> pd.DataFrame:
    first: pd.DataFrame = frame[frame["strategy"] == frame["strategy"].iloc[0]]
    return first


def _looks(frame: pd.DataFrame) -> dict[str, Look]:
    return looks(list(dict.fromkeys(frame["method"])))
