"""`experiment ablation`: the whole engine and parts of it on the same instances, nothing twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from runner.cli.app import app
from runner.contract.errors import UsageError
from runner.contract.vocabulary import Cause, EnginePart, Verdict
from runner.execute.gang import RankServer
from runner.experiments.ablation_experiment import (
    EVERYTHING,
    NOTHING,
    ROWS,
    AblationRow,
    ablate,
    parts_named,
    summary,
)
from runner.experiments.attacks_experiment import tasks_of
from runner.report.ablation_table import ablation_table
from runner.report.table import grid

DIGITS = Path(__file__).resolve().parents[2] / "benchmarks" / "digits_mlp"
SAT, UNSAT = "image_0_radius_0.15", "image_0_radius_0.11"


@pytest.fixture
def category(tmp_path: Path) -> Path:
    """An instance that has a counterexample, one that has none, and one without a network."""
    folder = tmp_path / "digits"
    shutil.copytree(DIGITS, folder)
    names = [("mlp_2x64", SAT), ("mlp_2x64", UNSAT), ("gone", SAT)]
    rows = (f"onnx/{network}.onnx,vnnlib/{name}.vnnlib,20\n" for network, name in names)
    (folder / "instances.csv").write_text("".join(rows))
    return folder


def test_every_instance_is_answered_by_the_whole_engine_and_without_each_part(
    category: Path, tmp_path: Path, rank_server: RankServer
) -> None:
    told: list[AblationRow] = []
    out = tmp_path / "out"
    tasks = tasks_of([category], None, None, 0)
    parts = parts_named(["forward", "alpha+clips", EVERYTHING])
    frame = ablate(tasks, parts, out, rank_server, told.append)
    assert [row.without for row in told] == 3 * [NOTHING, "forward", "alpha+clips", EVERYTHING]
    for row in told:
        if "gone" in row.network:
            assert (row.verdict, row.cause) == (Verdict.ERROR, Cause.MISSING_FILE)
        else:
            assert row.verdict is (Verdict.UNSAT if UNSAT in row.property else Verdict.SAT)
            assert row.cpu_s is not None
    bounds = {row.without: row.lower_bound for row in told if UNSAT in row.property}
    assert bounds["forward"] == bounds[NOTHING] == 0, "half spaces have their say"
    assert bounds["alpha+clips"] is not None
    assert bounds["alpha+clips"] > 0
    again = ablate(tasks, parts, out, rank_server, told.append)
    assert len(told) == len(again) == 12, "what is there is not done again"
    pd.testing.assert_frame_equal(again, frame)

    rows = out / ROWS
    rows.write_bytes(rows.read_bytes()[:-5])
    ablate(tasks, parts, out, rank_server, told.append)
    assert len(told) == 13, "but for a row that a kill cut off"
    ablate(tasks[:1], parts_named(["cuts"]), out, rank_server, told.append)
    assert [row.without for row in told[13:]] == ["cuts"], "the whole engine has answered already"
    assert len(pd.read_csv(rows)) == 13


def test_the_command_prints_and_writes_a_table(category: Path, tmp_path: Path, warm: None) -> None:
    words = ["experiment", "ablation", str(category), "--filter", f"*{UNSAT}", "--timeout", "10"]
    result = CliRunner().invoke(app, [*words, "--without", "cuts", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "without cuts: unsat in" in result.output
    assert "What each part of the engine buys" in result.output
    assert "| cuts" in (tmp_path / "out" / "ablation.md").read_text()
    assert pd.read_csv(tmp_path / "out" / ROWS)["timeout_s"].unique().tolist() == [10.0]


def row(category: str, name: str, without: str, verdict: Verdict, cpu_s: float) -> AblationRow:
    asked = category, "n", name, 20.0, 0, without
    return AblationRow(*asked, verdict=verdict, run_time_s=cpu_s, cpu_s=cpu_s)


def test_a_summary_holds_each_part_against_the_whole_engine_on_what_both_decide() -> None:
    rows = [
        row("c", "a", NOTHING, Verdict.UNSAT, 1.0),
        row("c", "a", "cuts", Verdict.UNSAT, 3.0),
        row("c", "b", NOTHING, Verdict.SAT, 2.0),
        row("c", "b", "cuts", Verdict.TIMEOUT, 20.0),
        row("c", "c", NOTHING, Verdict.UNKNOWN, 9.0),
        row("c", "c", "cuts", Verdict.SAT, 4.0),
        row("d", "a", NOTHING, Verdict.UNSAT, 1.0),
        row("d", "a", "cuts", Verdict.UNSAT, 0.5),
    ]
    told = {
        (r["category"], r["without"]): r for r in summary(pd.DataFrame(rows)).to_dict("records")
    }
    assert list(told) == [(name, left) for name in ("c", "d", "all") for left in (NOTHING, "cuts")]

    def of(name: str, without: str, *columns: str) -> list[object]:
        return [told[name, without][column] for column in columns]

    counts = "instances", "decided", "lost", "won", "both", "contradict"
    assert of("c", "cuts", *counts) == [3, 2, 1, 1, 1, 0]
    assert of("all", "cuts", *counts) == [4, 3, 1, 1, 2, 0]
    assert of("c", NOTHING, *counts) == [3, 2, 0, 0, 2, 0]
    times = "median_cpu_s", "total_cpu_s", "of_whole"
    assert of("c", "cuts", *times) == [3.0, 3.0, 3.0]
    assert of("all", "cuts", *times) == [1.75, 3.5, 1.75]
    assert of("c", NOTHING, "of_whole") == [1.0]


def test_what_goes_the_same_way_is_told_from_noise_and_has_no_line_in_its_category() -> None:
    def answer(
        category: str, without: str, bound: float | None, domains: int | None
    ) -> AblationRow:
        made = row(category, "a", without, Verdict.UNSAT, 1.0)
        return replace(made, method="crown", lower_bound=bound, domains=domains)

    rows = [
        answer("c", NOTHING, 0.5, 40),
        answer("c", "cuts", 0.5, 40),
        answer("c", "alpha", 0.25, 40),
        answer("c", "near-alpha", 0.5, None),
        answer("d", NOTHING, None, None),
        answer("d", "cuts", None, None),
        answer("d", "alpha", None, None),
        answer("d", "near-alpha", None, None),
    ]
    made = summary(pd.DataFrame(rows))
    assert made["changed"].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1]
    shown = [(category, left) for category, left, *_ in grid(ablation_table(made)).rows]
    of_all = [("all", left) for left in (NOTHING, "alpha", "cuts", "near-alpha")]
    assert shown == [("c", NOTHING), ("c", "alpha"), ("c", "near-alpha"), ("d", NOTHING), *of_all]


def test_parts_have_their_own_order_and_what_nobody_decides_no_time() -> None:
    asked = (EVERYTHING, "alpha+mixes", "mixes", "alpha", NOTHING)
    rows = [row("c", "a", without, Verdict.TIMEOUT, 9.0) for without in asked]
    made = summary(pd.DataFrame(rows))
    assert made["without"].tolist() == [*reversed(asked[2:]), "alpha+mixes", EVERYTHING]
    assert made[["median_cpu_s", "total_cpu_s", "of_whole"]].isna().all(axis=None)


def test_an_answer_that_contradicts_the_whole_engines_alarms() -> None:
    rows = [
        row("c", "a", NOTHING, Verdict.UNSAT, 1.0),
        row("c", "a", "cuts", Verdict.SAT, 1.0),
        row("c", "a", "alpha", Verdict.UNSAT, 1.0),
    ]
    made = grid(ablation_table(summary(pd.DataFrame(rows))))
    assert made.red == {2}, "in the order of parts, α comes before cuts"
    assert "category" not in made.head, "there is only one"


def test_each_part_is_left_out_by_itself_and_then_all_where_none_is_named() -> None:
    *alone, everything = parts_named([])
    assert alone == [frozenset({part}) for part in EnginePart]
    assert everything == frozenset(EnginePart)


def test_an_unknown_part_is_named_with_those_that_are_known(category: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown part 'beta'; known: forward, early-specs"):
        parts_named(["forward+beta"])
    words = ["experiment", "ablation", str(category), "--without", "beta"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "unknown part 'beta'; known: forward, " in result.output


def test_the_help_tells_what_each_part_is() -> None:
    result = CliRunner().invoke(app, ["experiment", "ablation", "--help"])
    for part in EnginePart:
        assert f"{part:<14}{part.__doc__}" in result.output
