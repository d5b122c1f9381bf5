"""Writes an experiment's table: Markdown, CSV with every number unrounded, and for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table as RichTable

from runner.contract.whole import replace_file
from runner.experiments.experiment import Experiment
from runner.experiments.experiment_tables import side_by_side, table
from runner.experiments.measured_rows import measurements
from runner.report.render import markdown, rich_table
from runner.report.table import grid


def write_tables(experiment: Experiment, folder: Path) -> list[RichTable]:
    """table.md and table.csv in the experiment's folder; gives parts of it for a terminal."""
    made = table(experiment.kind, measurements(experiment, folder))
    replace_file(folder / "table.md", markdown(grid(made)))
    replace_file(folder / "table.csv", made.frame.to_csv(index=False))
    return [rich_table(part) for part in side_by_side(made)]
