"""How the bound of one branch and bound went, from the history that rank 0 wrote."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.record.append import whole_lines
from runner.report.columns import number
from runner.report.table import Table
from runner.report.text import seconds

_LEVELS = "▁▂▃▄▅▆▇█"
_LINES = 10
_WIDTH = 48


def history(path: Path) -> pd.DataFrame:
    """Columns seconds, domains, open and bound, a row per round that was kept.

    A line that a kill cut off is left out.
    """
    text = whole_lines(path)
    return pd.read_csv(io.StringIO(text)) if text else pd.DataFrame(columns=["seconds"])


def history_table(label: str, rounds: pd.DataFrame) -> Table:
    """The first and the last round, and what was known at even times between them."""
    ends = rounds["seconds"].to_numpy(dtype=float)
    places = _known_at(ends, np.linspace(ends[0], ends[-1], _LINES))
    return Table(
        "progress",
        f"Search of {label}, rank 0",
        (
            number("after", "seconds", seconds),
            number("domains", "domains"),
            number("open", "open"),
            number("bound", "bound", "{:.6g}".format),
        ),
        rounds.iloc[np.unique(places)],
    )


def curve(rounds: pd.DataFrame) -> str:
    """The bound over time as one line of text: blocks between its least and greatest value."""
    ends = rounds["seconds"].to_numpy(dtype=float)
    bounds = rounds["bound"].to_numpy(dtype=float)
    finite = bounds[np.isfinite(bounds)]
    if not len(finite):
        return ""
    low, high = float(finite.min()), float(finite.max())
    width = min(_WIDTH, len(ends))
    shown = bounds[_known_at(ends, np.linspace(ends[0], ends[-1], width))]
    heights = (np.clip(np.nan_to_num(shown, nan=low), low, high) - low) / ((high - low) or 1.0)
    levels = np.rint(heights * (len(_LEVELS) - 1)).astype(int)
    blocks = "".join(_LEVELS[level] for level in levels)
    return f"{bounds[0]:.6g} {blocks} {bounds[-1]:.6g} in {seconds(ends[-1])}"


def _known_at(ends: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.intp]:
    """The last round that had ended at each time; `ends` ascend."""
    return np.searchsorted(ends, times, side="right") - 1
