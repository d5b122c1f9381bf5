"""One look for all plots. Strategies differ in marker and dash too, kinds of memory in hatching:
nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MultipleLocator, NullFormatter

from runner.report.text import size

# Okabe and Ito's colours, which colour-blind people tell apart; black is for baseline.
_COLOURS = (
    "#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00",
    "#882255", "#888888", "#332288", "#117733", "#AA4499", "#44AA99",
)  # fmt: skip
_MARKERS = "osD^vP*<h>pd8X"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "--")

WIDTH = 5.8  # inches: small, so that letters are large on a phone
_TICKS = 3  # at most so many on an axis of bytes, besides 0
_RULES: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "report",
    "savefig.dpi": 150,
}


@dataclass(frozen=True)
class Look:
    """How one label is drawn in every plot."""

    colour: str
    marker: str
    dash: Any


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """The same label in the same order looks the same."""
    return {
        label: Look(
            _COLOURS[index % len(_COLOURS)],
            _MARKERS[index % len(_MARKERS)],
            _DASHES[index % len(_DASHES)],
        )
        for index, label in enumerate(labels)
    }


@contextmanager
def house_style() -> Iterator[None]:
    """Everything drawn and saved inside has the common look."""
    with mpl.rc_context(_RULES):
        yield


def panels(number: int, height: float, across: int = 1) -> tuple[Figure, list[Axes]]:
    """`number` axes in rows of at most `across`, on a figure without a backend.

    `height`: of one row, in inches.
    """
    columns = min(number, across)
    rows = -(-number // columns)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for empty in axes[number:]:
        empty.remove()
    return figure, list(axes[:number])


def seconds_axis(axis: Axis) -> None:
    axis.set_major_formatter(EngFormatter(unit="s", sep=" "))
    axis.set_minor_formatter(NullFormatter())


def bytes_axis(axis: Axis) -> None:
    """Ticks at round numbers of binary units; to be called when everything is drawn."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
    axis.set_minor_formatter(NullFormatter())
    if axis.get_scale() == "linear":
        least, most = axis.get_view_interval()
        step = 2.0 ** math.ceil(math.log2(max(most - least, 1) / _TICKS))
        axis.set_major_locator(MultipleLocator(step))


def legend_above(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """One legend for all panels, row by row in the order in which things were drawn."""
    drawn = list(zip(*axes.get_legend_handles_labels(), strict=True))
    columns = min(columns, len(drawn))
    # Matplotlib fills column after column.
    by_column = [entry for column in range(columns) for entry in drawn[column::columns]]
    handles, names = zip(*by_column, strict=True)
    figure.legend(handles, names, loc="outside upper center", ncols=columns)
