"""How a bound went over time, from the file that a search leaves."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from made_runs import MadeRun

from runner.contract.vocabulary import Cause, Verdict
from runner.problem.names import matches
from runner.report.bound_progress import curve, history, history_table
from runner.report.gather import Evidence, gather
from runner.report.story import stories
from runner.report.table import grid

HEADER = "seconds,domains,open,bound\n"


def rounds(*lines: tuple[float, int, int, float]) -> pd.DataFrame:
    return pd.DataFrame(lines, columns=["seconds", "domains", "open", "bound"])


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.progress.csv"
    path.write_text(HEADER + "0.5,9,9,-3.5\n1.0,18,1")

    assert history(path).to_dict("records") == [
        {"seconds": 0.5, "domains": 9, "open": 9, "bound": -3.5}
    ]
    path.write_text("")
    assert not len(history(path))


def test_many_rounds_are_ten_lines_at_even_times_with_both_ends() -> None:
    # The first half of the rounds takes a hundredth of the time.
    ends = [0.001 * n for n in range(100)] + [0.1 + 0.1 * n for n in range(100)]
    found = rounds(*((at, n, 1, -1.0) for n, at in enumerate(ends)))
    shown = history_table("fsdp", found).frame

    assert 8 <= len(shown) <= 10
    assert (shown["domains"].iloc[0], shown["domains"].iloc[-1]) == (0, 199)
    assert (shown["domains"] >= 100).sum() >= 8


def test_few_rounds_are_shown_once_each() -> None:
    found = rounds((0.5, 9, 9, -3.5), (0.6, 18, 10, -2.0), (4.0, 36, 0, 0.25))

    assert grid(history_table("fsdp", found)).rows == (
        ("0.500 s", "9", "9", "-3.5"),
        ("0.600 s", "18", "10", "-2"),
        ("4.000 s", "36", "0", "0.25"),
    )


@pytest.mark.parametrize(
    ("bounds", "drawn"),
    [
        ([-7.0, -6.0, -4.0, 0.0], "-7 ▁▂▄█ 0 in 3.000 s"),
        ([-2.0, -2.0], "-2 ▁▁ -2 in 1.000 s"),
        ([-math.inf, math.nan, -1.0, 1.0], "-inf ▁▁▁█ 1 in 3.000 s"),
        ([-math.inf], ""),
    ],
)
def test_a_curve_rises_with_the_bound(bounds: list[float], drawn: str) -> None:
    assert curve(rounds(*((float(n), n, 1, bound) for n, bound in enumerate(bounds)))) == drawn


def test_a_long_search_fits_a_line() -> None:
    found = rounds(*((float(n), n, 1, float(n)) for n in range(1000)))
    assert len(curve(found)) < 80


def test_an_instance_tells_of_its_search(tmp_path: Path) -> None:
    made = MadeRun(tmp_path)
    made.add("fsdp", 1, Verdict.UNKNOWN, 9.0, (500, 400), cause=Cause.FIXED_WORKLOAD)
    made.add("fsdp", 2, Verdict.UNSAT, 9.0, (500, 400))
    run = made.read()
    log = run.path / "logs" / "fsdp" / "digits" / "net_p1.progress.csv"
    log.parent.mkdir(parents=True)
    log.write_text(HEADER + "0.5,9,9,-3.5\n1.0,18,10,-2.5\n")

    def chosen_by(name: str) -> Evidence:
        return gather([run]).only(lambda network, prop: matches(network, prop, name))

    for name, told in (("net_p1", True), ("net_p2", False)):
        (story,) = stories(run, chosen_by(name))
        assert ("fsdp, bound over time" in dict(story.facts)) is told
        assert any("Search of fsdp" in grid.title for grid in story.grids) is told
