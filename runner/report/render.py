"""Grids as rich tables, Markdown and LaTeX."""

from __future__ import annotations

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from runner.report.grid import Grid
from runner.report.words import VERDICT_STYLES

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "×": r"$\times$",
        "−": "$-$",
        "α": r"$\alpha$",
        "β": r"$\beta$",
        "–": "--",
    }
)


def rich_table(grid: Grid) -> RichTable:
    """For a terminal; verdicts have their colours, alarms are red."""
    table = RichTable(
        title=grid.title or None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD
    )
    for title, number in zip(grid.head, grid.numbers, strict=True):
        table.add_column(Text(title), justify="right" if number else "left", overflow="fold")
    for index, row in enumerate(grid.rows):
        style = "bold red" if index in grid.red else ""
        table.add_row(*map(_cell, row), style=style)
    return table


def markdown(grid: Grid) -> str:
    """A title, the table and its note; rows that alarm are bold."""
    rule = ["---:" if number else "---" for number in grid.numbers]
    lines = [_line(grid.head), f"| {' | '.join(rule)} |\n"]
    for index, row in enumerate(grid.rows):
        cells = [f"**{cell}**" if index in grid.red and cell else cell for cell in row]
        lines.append(_line(cells))
    heading = f"### {grid.title}\n\n" if grid.title else ""
    note = f"\n{grid.note}\n" if grid.note else ""
    return heading + "".join(lines) + note


def latex(grid: Grid, label: str) -> str:
    """A `table` with booktabs rules; rows that alarm are bold."""
    align = "".join("r" if number else "l" for number in grid.numbers)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(' '.join(part for part in (grid.title + '.', grid.note) if part))}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        " & ".join(map(_escape, grid.head)) + r" \\",
        r"\midrule",
    ]
    for index, row in enumerate(grid.rows):
        cells = [_escape(cell) for cell in row]
        if index in grid.red:
            cells = [rf"\textbf{{{cell}}}" for cell in cells]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> Text:
    word, _, rest = text.partition(" ")
    for verdict, style in VERDICT_STYLES.items():
        if word == verdict:
            return Text.assemble((word, style), (f" {rest}" if rest else "", "dim"))
    return Text(text)


def _line(cells: tuple[str, ...] | list[str]) -> str:
    escaped = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |\n"


def _escape(text: str) -> str:
    return text.translate(_LATEX)
