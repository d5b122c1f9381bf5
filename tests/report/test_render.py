"""Tables as text: golden files, and what must be escaped.

To remake the golden files: REMAKE_GOLDEN=1 pytest tests/report/test_render.py, then look at them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import compared
from rich.console import Console

from runner.contract.vocabulary import Verdict
from runner.report.columns import short_name
from runner.report.gather import Evidence
from runner.report.grid import Grid, columns_apart
from runner.report.render import latex, markdown, rich_table
from runner.report.sentences import sentences
from runner.report.table import Table, grid
from runner.report.tables import (
    causes_table,
    instances_table,
    ranks_table,
    side_by_side,
    strategies_table,
)
from runner.report.text import count, difference, seconds, size

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    made = compared(tmp_path)
    made.add("lirpa", 2, Verdict.UNSAT, 0.0312, (10,))
    made.add("lirpa", 1, Verdict.UNSAT, 2.0, (10_000_000,))
    return made.evidence()


def tables(evidence: Evidence) -> list[Table]:
    return [
        instances_table(evidence),
        ranks_table(evidence),
        causes_table(evidence),
    ]


def compare_with_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("REMAKE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("index", range(3), ids=["instances", "ranks", "causes"])
def test_markdown_and_latex_are_as_they_were_agreed(evidence: Evidence, index: int) -> None:
    table = tables(evidence)[index]

    compare_with_golden(f"{table.name}.md", markdown(grid(table)))
    compare_with_golden(f"{table.name}.tex", latex(grid(table), table.name))


def test_the_summary_side_by_side_is_as_it_was_agreed(evidence: Evidence) -> None:
    (text,) = side_by_side(strategies_table(evidence))

    compare_with_golden("strategies.md", markdown(text))
    compare_with_golden("strategies.tex", latex(text, "strategies"))


def test_the_sentences_are_as_they_were_agreed(evidence: Evidence) -> None:
    compare_with_golden("sentences.txt", "\n".join(sentences(evidence)) + "\n")


def printed(text: Grid, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(rich_table(text))
    return capture.get()


def test_the_summary_fits_a_terminal(evidence: Evidence) -> None:
    (summary,) = side_by_side(strategies_table(evidence))
    text = printed(summary)

    assert "dispatch" in text
    assert "0.25×" in text
    assert "…" not in text


def test_nothing_is_cut_off_in_a_narrow_terminal(evidence: Evidence) -> None:
    text = printed(grid(instances_table(evidence)), width=60)

    assert "…" not in text
    assert "".join(text.split()).count("unsat") == 6


def test_what_is_markup_elsewhere_is_text() -> None:
    odd = Grid("", ("a|b",), (False,), (("[red]x[/] | 50 % _y_ {z} \\ #1 & ~^$",),))

    assert "| [red]x[/] \\| 50 % _y_" in markdown(odd)
    assert r"50 \% \_y\_ \{z\} \textbackslash{} \#1 \& \textasciitilde{}" in latex(odd, "odd")
    assert "[red]x[/]" in printed(odd)


@pytest.mark.parametrize(
    ("name", "short"),
    [("benchmarks/digits/onnx/net.onnx.gz", "net"), ("vnnlib/p_0.1.vnnlib", "p_0.1"),
     ("./onnx/medical/net.onnx", "medical/net"), ("nets/a.onnx", "nets/a"), ("odd", "odd")],
)  # fmt: skip
def test_names_are_shown_without_what_all_of_them_have(name: str, short: str) -> None:
    assert short_name(name) == short


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (10**9, "954 MiB"),
     (5 * 2**40, "5 TiB"), (float("nan"), "–")],
)  # fmt: skip
def test_sizes(value: float, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0312, "0.031 s"), (12.34, "12.3 s"), (3600, "3,600.0 s")]
)
def test_times(value: float, text: str) -> None:
    assert seconds(value) == text


def test_numbers_of_things_and_differences() -> None:
    assert (count(12345.0), difference(3.14159e-8), difference(0.0)) == ("12,345", "3.1e-08", "0")


@given(st.integers(1, 12), st.integers(1, 5))
def test_columns_that_are_shown_apart_are_all_there_under_the_same_rows(
    others: int, most: int
) -> None:
    head = ("what", *(f"strategy {index}" for index in range(others)))
    rows = tuple((f"row {row}", *(f"{row} {index}" for index in range(others))) for row in range(2))
    whole = Grid("title", head, (False,) * len(head), rows, frozenset({1}), "note")
    parts = columns_apart(whole, most)
    assert all(len(part.head) <= 1 + most for part in parts)
    assert ("what", *(name for part in parts for name in part.head[1:])) == head
    for index, row in enumerate(rows):
        assert all(part.rows[index][0] == row[0] for part in parts)
        assert (row[0], *(cell for part in parts for cell in part.rows[index][1:])) == row
    assert [part.title for part in parts if part.title] == ["title"]
    assert parts[-1].note == "note"
    assert all(part.red == {1} for part in parts)
