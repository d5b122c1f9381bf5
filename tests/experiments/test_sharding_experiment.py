"""`experiment sharding`: the same bounds of trained networks under every strategy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from recipes import tiny
from runner.cli.app import app
from runner.experiments.sharding_experiment import sharding_summary, with_training
from runner.report.sharding_table import sharding_table
from runner.report.table import grid

ONE_IMAGE = "*image_40_*"  # that both networks classify right


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `experiment sharding` writes of two networks."""
    folder = tmp_path_factory.mktemp("sharding")
    recipe = tiny(folder, radii="radii = [0.05]")
    call("experiment", "sharding", recipe, "--out", folder / "out", "--filter", ONE_IMAGE)
    return folder / "out" / "tiny" / "sharding"


def test_every_method_has_a_row_for_each_strategy_at_its_number_of_ranks(made: Path) -> None:
    table = pd.read_csv(made / "report" / "sharding.csv")
    found = list(zip(table["method"], table["strategy"], table["ranks"], strict=True))
    assert sorted(found) == sorted(
        (method, strategy, ranks)
        for method in ("standard", "nbc")
        for strategy, ranks in (("baseline", 1), ("fsdp", 2), ("tp", 2))
    )
    assert (table["questions"] == 1).all()


def test_strategies_differ_in_memory_and_traffic_and_not_in_rows(made: Path) -> None:
    table = pd.read_csv(made / "report" / "sharding.csv")
    assert (table.groupby("method")["rows"].nunique() == 1).all()
    rows = {(row["method"], row["strategy"]): row for row in table.to_dict("records")}
    for method in ("standard", "nbc"):
        whole, fsdp, tp = (rows[method, name] for name in ("baseline", "fsdp", "tp"))
        assert whole["comm_bytes"] == 0
        assert fsdp["comm_bytes"] > 0
        assert tp["comm_bytes"] > 0
        assert fsdp["weight_bytes"] < whole["weight_bytes"]
        assert fsdp["greatest_relative"] == 0, "fsdp is bitwise equal"
        assert tp["peak_a_bytes_of_baseline"] == tp["peak_a_bytes"] / whole["peak_a_bytes"]


def test_the_same_command_resumes_and_another_filter_is_refused(made: Path) -> None:
    recipe, out = made.parents[2] / "tiny.toml", made.parents[1]
    again = ["experiment", "sharding", recipe, "--out", out]
    before = (made / "report" / "sharding.csv").read_bytes()
    call(*again, "--filter", ONE_IMAGE)
    assert (made / "report" / "sharding.csv").read_bytes() == before
    said = call(*again, "--filter", "*image_0_*", code=2)
    assert "holds another experiment; choose another --run name" in said


def measured(strategy: str, network: str, image: int, **bytes_: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "network": f"onnx/{network}_seed0.onnx",
        "property": f"vnnlib/image_{image}_radius_0.1.vnnlib",
        "method": "crown",
        "strategy": strategy,
        "ranks": 1 if strategy == "baseline" else 2,
        "rows": 10.0,
        **dict.fromkeys(("peak_tensor_bytes", "peak_a_bytes", "peak_alpha_bytes"), 100.0),
        **dict.fromkeys(("weight_bytes", "comm_bytes", "greatest_relative", "cpu_s"), 0.0),
    }
    return row | bytes_


def figures() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "network": ["standard_seed0", "nbc_seed0"],
            "method": ["standard", "nbc"],
            "seed": 0,
            "radius": 0.1,
        }
    )


def test_a_question_that_one_strategy_did_not_bound_counts_for_none() -> None:
    rows = [
        measured("baseline", "standard", 1, peak_a_bytes=40),
        measured("tp", "standard", 1, peak_a_bytes=10),
        measured("baseline", "standard", 2, peak_a_bytes=4000),
        measured("tp", "standard", 2, peak_tensor_bytes=np.nan),
    ]
    whole, tp = sharding_summary(with_training(pd.DataFrame(rows), figures())).to_dict("records")
    assert (whole["questions"], whole["peak_a_bytes"]) == (1, 40)
    assert tp["peak_a_bytes_of_baseline"] == 0.25


def test_each_trained_network_is_told_against_itself() -> None:
    rows = [
        measured("baseline", "standard", 1, peak_tensor_bytes=100),
        measured("tp", "standard", 1, peak_tensor_bytes=50),
        measured("baseline", "nbc", 1, peak_tensor_bytes=10),
        measured("tp", "nbc", 1, peak_tensor_bytes=8),
    ]
    summary = sharding_summary(with_training(pd.DataFrame(rows), figures()))
    told = summary.set_index(["method", "strategy"])["peak_tensor_bytes_of_baseline"]
    assert told["standard", "tp"] == 0.5
    assert told["nbc", "tp"] == 0.8


def test_the_table_leaves_out_what_is_alike_and_names_it_in_the_title() -> None:
    rows = [measured("baseline", "nbc", 1), measured("tp", "nbc", 1)]
    made = grid(sharding_table("x", sharding_summary(with_training(pd.DataFrame(rows), figures()))))
    assert "radius" not in made.head
    assert made.title == "Sharding trained networks: x (crown, radius 0.1)"
    assert made.rows[1][:2] == ("nbc", "tp")
