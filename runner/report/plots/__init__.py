"""The plots of a report, in the order that it shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from runner.report.gather import Evidence
from runner.report.plots.memory import memory_by_kind, memory_scatter
from runner.report.plots.time import cactus, phases, speed_up, time_scatter


@dataclass(frozen=True)
class Plot:
    """`draw` gives None when the evidence has nothing to show."""

    name: str
    title: str
    note: str
    draw: Callable[[Evidence], Figure | None]


PLOTS = (
    Plot(
        "cactus",
        "Solved over time",
        "How many instances each strategy had solved after so many seconds each.",
        cactus,
    ),
    Plot(
        "time",
        "Time against baseline",
        "One mark per instance; below the diagonal is faster than baseline. Crosses were not "
        "solved in time and lie at their timeout: on the dotted lines, where all have one.",
        time_scatter,
    ),
    Plot(
        "memory",
        "Peak memory of a rank against baseline",
        "One mark per instance; below the diagonal is less than baseline. "
        "Live tensor bytes of the greatest rank; crosses did not run to an end.",
        memory_scatter,
    ),
    Plot(
        "memory_by_kind",
        "Memory of each rank at its peak",
        "What a rank held when it held the most, by kind: mean over instances. "
        "The whole bar is the mean peak; a kind may have been larger at another moment.",
        memory_by_kind,
    ),
    Plot(
        "phases",
        "Time by phase",
        "Mean over the instances that all strategies ran to an end, and over ranks. "
        "The black line is the part spent in collectives, in whatever phase.",
        phases,
    ),
    Plot(
        "speed_up",
        "Speed-up over P",
        "Geometric mean over the instances that all strategies ran to an end.",
        speed_up,
    ),
)
