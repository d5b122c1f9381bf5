"""A report as files: one HTML page, and every table and plot by itself."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from runner.contract.whole import replace_file
from runner.report.gather import Evidence
from runner.report.grid import Grid
from runner.report.html import Image, report_page
from runner.report.plots import PLOTS
from runner.report.plots.style import house_style
from runner.report.render import latex, markdown
from runner.report.table import Table, grid
from runner.report.tables import (
    causes_table,
    instances_table,
    ranks_table,
    side_by_side,
    strategies_table,
)

PAGE = "report.html"


def write_report(evidence: Evidence, folder: Path) -> Path:
    """Writes report.html, tables as Markdown, CSV (unrounded) and LaTeX, plots as PNG and SVG.

    Gives the page's path. Files of an earlier report are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = (
        strategies_table(evidence),
        instances_table(evidence),
        ranks_table(evidence),
        causes_table(evidence),
    )
    for table in tables:
        wide = table.name == "strategies"
        write_table(table, side_by_side(table) if wide else [grid(table)], folder)
    images = _write_plots(evidence, folder)
    page = folder / PAGE
    replace_file(page, report_page(evidence, tables, images, folder))
    return page


def write_table(table: Table, grids: Sequence[Grid], folder: Path) -> None:
    """As `<name>.csv`, and its grids as `<name>.md` and `<name>.tex`."""
    text = "\n".join(map(markdown, grids))
    (folder / f"{table.name}.md").write_text(text, encoding="utf-8")
    names = [table.name, *(f"{table.name}_{index}" for index in range(2, len(grids) + 1))]
    text = "\n".join(map(latex, grids, names))
    (folder / f"{table.name}.tex").write_text(text, encoding="utf-8")
    table.frame.to_csv(folder / f"{table.name}.csv", index=False)


def _write_plots(evidence: Evidence, folder: Path) -> list[Image]:
    images = []
    with house_style():
        for plot in PLOTS:
            figure = plot.draw(evidence)
            if figure is None:
                continue
            svg = saved(figure, folder, plot.name)
            encoded = b64encode(svg).decode("ascii")
            images.append(Image(plot.title, plot.note, encoded))
    return images


def saved(figure: Figure, folder: Path, name: str) -> bytes:
    """Writes a plot as PNG and SVG; gives the latter."""
    figure.savefig(folder / f"{name}.png")
    figure.set_layout_engine("none")  # placed by now: a second time would take as long
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    (folder / f"{name}.svg").write_bytes(buffer.getvalue())
    return buffer.getvalue()
