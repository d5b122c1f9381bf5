"""`experiment` writes folders of runs and a table, resumes them, and refuses what it cannot do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from runner.cli.app import app
from runner.record.read import read_run

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("warm")
SMALL = ["--width", "24", "--depth", "3", "--ranks", "1,2", "--radius", "0.02"]


def experiment(*words: str) -> str:
    result = CliRunner().invoke(app, ["experiment", *words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def memory(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    experiment(
        "memory", *SMALL, "--strategies", "fsdp,tp,lirpa", "--results", str(results), "--run", "m"
    )
    return results / "m"


def cell(table: pd.DataFrame, strategy: str, column: str) -> float:
    """A number of a table whose rows are named by strategy."""
    (found,) = table.loc[[strategy], column].astype(float)
    return float(found)


def test_every_strategy_and_number_of_ranks_has_a_row(memory: Path) -> None:
    table = pd.read_csv(memory / "table.csv")
    assert list(zip(table["strategy"], table["ranks"], strict=True)) == [
        ("baseline", 1),
        ("lirpa", 1),
        ("fsdp", 2),
        ("tp", 2),
    ]
    assert (table["cause"] == "incomplete").all(), table["message"]
    assert (table["peak_tensor_bytes"] > 0).all()
    assert len((memory / "table.md").read_text().splitlines()) > 6


def test_bounds_are_compared_with_baselines(memory: Path) -> None:
    table = pd.read_csv(memory / "table.csv").set_index("strategy")
    assert cell(table, "fsdp", "greatest_difference") == 0
    assert cell(table, "tp", "greatest_difference") < 1e-4
    # auto_LiRPA takes nothing off for what it rounds.
    assert cell(table, "lirpa", "spec_greatest") < 0.05
    assert cell(table, "baseline", "weight_bytes_ratio") == 1


def test_its_parts_are_run_folders_of_their_own(memory: Path) -> None:
    run = read_run(memory / "crown-ranks2")
    assert set(run.outcomes["strategy"]) == {"fsdp", "tp"}
    assert len(run.ranks) == 4


def test_the_same_command_resumes_and_another_is_refused(memory: Path) -> None:
    before = (memory / "crown-ranks1" / "outcomes.csv").read_text()
    words = ["--results", str(memory.parent), "--run", "m"]
    experiment("memory", *SMALL, "--strategies", "fsdp,tp,lirpa", *words)
    assert (memory / "crown-ranks1" / "outcomes.csv").read_text() == before
    other = CliRunner().invoke(app, ["experiment", "memory", *SMALL, "--strategies", "sp", *words])
    assert other.exit_code == 2
    assert "another experiment" in other.output


def test_scaling_compares_traffic_with_its_formula(tmp_path: Path) -> None:
    words = ["--width", "64", "--depth", "4", "--ranks", "1,2", "--radius", "0.02"]
    options = ["--methods", "crown", "--strategies", "tp,fsdp+sp,tp=2+sp=2,fsdp=2+sp=2"]
    experiment("scaling", *words, *options, "--results", str(tmp_path), "--run", "s")
    table = pd.read_csv(tmp_path / "s" / "table.csv")
    shared = table[table["ranks"] > 1]
    assert list(zip(shared["strategy"], shared["ranks"], strict=True)) == [
        ("tp", 2),
        ("fsdp+sp", 2),
        ("tp=2+sp=2", 4),
        ("fsdp=2+sp=2", 4),
    ]
    # Vectors (interval bounds, biases) are not in it, and weigh on a network as small as this.
    assert shared["formula_ratio"].between(0.95, 1.6).all(), shared["formula_ratio"]
    assert (table["speedup"] > 0).all()


def test_weak_scaling_has_a_network_for_each_number_of_ranks(tmp_path: Path) -> None:
    words = ["--width", "32", "--depth", "3", "--ranks", "1,2", "--weak", "--strategies", "sp"]
    experiment("scaling", *words, "--methods", "crown", "--results", str(tmp_path), "--run", "w")
    table = pd.read_csv(tmp_path / "w" / "table.csv")
    networks = [*zip(table["network"], table["ranks"], strict=True)]
    assert networks == [
        ("onnx/mlp_3x32.onnx", 1),
        ("onnx/mlp_3x40.onnx", 1),
        ("onnx/mlp_3x40.onnx", 2),
    ]
    assert (table["weak_efficiency"] > 0).all()


def test_alpha_tells_what_lirpa_holds(tmp_path: Path) -> None:
    category = REPOSITORY / "benchmarks" / "digits_cnn"
    words = ["--category", str(category), "--limit", "1", "--strategies", "sp,lirpa"]
    experiment("alpha", *words, "--ranks", "1,2", "--results", str(tmp_path), "--run", "a")
    table = pd.read_csv(tmp_path / "a" / "table.csv").set_index("strategy")
    assert cell(table, "lirpa", "alpha_bytes") > 0
    assert cell(table, "sp", "greatest_difference") == 0


def test_search_does_the_same_work_under_every_strategy(tmp_path: Path) -> None:
    category = REPOSITORY / "benchmarks" / "digits_mlp"
    words = ["--category", str(category), "--limit", "1", "--strategies", "fsdp,dp"]
    work = ["--rounds", "3", "--batch", "32"]
    experiment("search", *words, *work, "--results", str(tmp_path), "--run", "s")
    table = pd.read_csv(tmp_path / "s" / "table.csv").set_index("strategy")
    assert (table["cause"] == "fixed_workload").all(), table["message"]
    assert table["domains"].nunique() == table["rounds"].nunique() == 1
    assert cell(table, "fsdp", "lower_bound") == cell(table, "baseline", "lower_bound")
    assert (table["peak_beta_bytes"] > 0).all()
    assert cell(table, "fsdp", "multiplier_bytes_ratio") == pytest.approx(1, abs=0.01)
    assert cell(table, "dp", "multiplier_bytes_ratio") < 0.7
    assert "fixed_workload" not in (tmp_path / "s" / "table.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["memory", "--ranks", "two"], "positive whole numbers"),
        (["memory", "--strategies", "magic"], "unknown strategy"),
        (["memory", "--strategies", "null"], "computes no bounds"),
        (["scaling", "--methods", "guess"], "unknown method"),
        (["scaling", "--weak", "--category", "x"], "leave --category out"),
        (["search", "--batch", "7"], "even number"),
    ],
)
def test_wrong_usage_is_named(words: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["experiment", *words, "--results", str(tmp_path)])
    assert result.exit_code == 2
    assert said in result.output
    assert not list(tmp_path.iterdir())
