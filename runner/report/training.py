"""The comparison of training methods as files: a table, its plots, and a page that has both."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import jinja2
import pandas as pd

from runner.contract.whole import replace_file
from runner.report.columns import number
from runner.report.grid import Grid
from runner.report.html import Image
from runner.report.plots.style import house_style
from runner.report.plots.training_plots import PLOTS
from runner.report.report_files import saved, write_table
from runner.report.table import Column, Table, grid
from runner.report.text import ratio, seconds, share, size

_PAGE = Path(__file__).parent / "page"

_COLUMNS = (
    Column("method", "method"),
    number("radius", "radius", lambda value: f"{value:g}"),
    Column("strategy", "strategy"),
    number("networks", "networks"),
    number("instances", "instances"),
    number("accuracy", "clean_accuracy", share),
    number("under PGD", "pgd_accuracy", share),
    number("stable ReLUs", "stable", share),
    number("verified accuracy", "verified_accuracy", share),
    number("unsat", "unsat", share),
    number("sat", "sat", share),
    number("mean time", "mean_s", seconds),
    number("median time", "median_s", seconds),
    number("speed / standard", "speed_up", ratio),
    number("mean CPU time", "cpu_mean_s", seconds),
    number("CPU / standard", "cpu_speed_up", ratio),
    number("mean proving", "proving_mean_s", seconds),
    number("proving / standard", "proving_speed_up", ratio),
    number("training", "training_s", seconds),
    number("training's peak", "training_peak_bytes", size),
)
_NOTE = (
    "Over all seeds together; in brackets the least and the greatest of single seeds. "
    "Accuracy: of the test part; under PGD: at most 1,000 images of it at the radius. Stable "
    "ReLUs: their sign is proved by CROWN; mean over instances. Verified accuracy: proved images "
    "by all of the category's, right or not; unsat and sat: by its instances, which a network "
    "classifies right. Times: of verification, the limit where nothing was decided. Speed: total "
    "time of standard by the method's, over the questions that both have; CPU: of the processor, "
    "which other work on the machine changes little; proving: bounds and branch and bound "
    "alone, over those that are violated for neither. Training's peak: resident memory above the "
    "start."
)


def training_table(name: str, frame: pd.DataFrame) -> Table:
    """Of a summary (runner.experiments.training_experiment); with strategies where several are."""
    one = frame["strategy"].nunique() == 1
    columns = tuple(c for c in _COLUMNS if not (one and c.source == "strategy"))
    return Table("training", f"Training methods: {name}", columns, frame, _NOTE)


def with_spread(table: Table) -> Grid:
    """A line per row; beside what differs over seeds, the least and the greatest of them."""
    columns = [_with_spread(table.frame, column) for column in table.columns]
    return replace(grid(table), rows=tuple(zip(*columns, strict=True)))


def _with_spread(frame: pd.DataFrame, column: Column) -> list[str]:
    means = [column.written(value) for value in frame[column.source]]
    ends = [f"{column.source}_{end}" for end in ("least", "most")]
    if not set(ends) <= set(frame):
        return means
    least, most = ([column.written(value) for value in frame[end]] for end in ends)
    return [
        mean if low == high else f"{mean} ({low} to {high})"
        for mean, low, high in zip(means, least, most, strict=True)
    ]


def short(table: Table) -> Table:
    """What fits a terminal."""
    left_out = {
        *("networks", "instances", "sat", "median_s", "proving_mean_s", "proving_speed_up"),
        *("cpu_mean_s", "speed_up"),
    }
    shown = tuple(c for c in table.columns if c.source not in left_out)
    return replace(table, columns=shown)


def write_training(name: str, frame: pd.DataFrame, folder: Path) -> Table:
    """training.md, .csv, .tex and .html, and plots as PNG and SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    table = training_table(name, frame)
    write_table(table, [with_spread(table)], folder)
    images = list(_plots(frame, folder))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = (_PAGE / "report.css").read_text(encoding="utf-8")
    page = environment.get_template("table.html.j2").render(
        table=with_spread(table), plots=images, style=style
    )
    replace_file(folder / "training.html", page)
    return table


def _plots(frame: pd.DataFrame, folder: Path) -> Iterable[Image]:
    with house_style():
        for plot in PLOTS:
            svg = saved(plot.draw(frame), folder, plot.name)
            yield Image(plot.title, plot.note, b64encode(svg).decode("ascii"))
