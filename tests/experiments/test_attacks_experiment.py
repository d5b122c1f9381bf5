"""`experiment attacks`: equal budgets, what each found, and nothing done twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from runner.cli.app import app
from runner.contract.errors import UsageError
from runner.execute.gang import RankServer
from runner.experiments.attacks_experiment import (
    ATTACKS,
    ROWS,
    AttackBudget,
    AttackRow,
    attack_all,
    summary,
    tasks_of,
)

DIGITS = Path(__file__).resolve().parents[2] / "benchmarks" / "digits_mlp"
SAT, UNSAT = "image_0_radius_0.15", "image_0_radius_0.04"
PASSES = 2000


@pytest.fixture
def category(tmp_path: Path) -> Path:
    """An instance that has a counterexample, one that has none, and one without a network."""
    folder = tmp_path / "digits"
    shutil.copytree(DIGITS, folder)
    names = [("mlp_2x64", SAT), ("mlp_2x64", UNSAT), ("gone", SAT)]
    rows = (f"onnx/{network}.onnx,vnnlib/{name}.vnnlib,20\n" for network, name in names)
    (folder / "instances.csv").write_text("".join(rows))
    return folder


def test_every_attack_spends_its_budget_and_what_it_finds_is_confirmed(
    category: Path, tmp_path: Path, rank_server: RankServer
) -> None:
    told: list[AttackRow] = []
    budget = AttackBudget(passes=PASSES)
    tasks = tasks_of([category], None, None, 0)
    frame = attack_all(tasks, ATTACKS, budget, tmp_path / "out", rank_server, told.append)
    assert len(frame) == len(told) == 3 * len(ATTACKS)
    for row in told:
        if "gone" in row.network:
            assert row.trouble.startswith("missing_file: ")
            continue
        assert row.trouble == ""
        assert row.passes is not None
        assert row.passes > PASSES
        assert row.nearest is not None
        if UNSAT in row.property:
            assert row.found_s is None
            assert row.nearest > 0
        else:
            assert row.found_s is not None, row.attack
            assert row.nearest <= 0
    again = attack_all(tasks, ATTACKS, budget, tmp_path / "out", rank_server, told.append)
    assert len(told) == len(again) == 3 * len(ATTACKS), "what is there is not done again"
    pd.testing.assert_frame_equal(again, frame)

    rows = tmp_path / "out" / ROWS
    rows.write_bytes(rows.read_bytes()[:-5])
    attack_all(tasks, ATTACKS, budget, tmp_path / "out", rank_server, told.append)
    assert len(told) == 3 * len(ATTACKS) + 1, "but for a row that a kill cut off"
    assert len(pd.read_csv(rows)) == 3 * len(ATTACKS)


def test_the_command_prints_and_writes_a_table(category: Path, tmp_path: Path, warm: None) -> None:
    words = ["experiment", "attacks", str(category), "--passes", "1000", "--attacks", "pgd,cw"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "Attacks with equal budgets: 1000 passes each" in result.output
    assert "| mlp_2x64" in (tmp_path / "out" / "attacks.md").read_text()
    assert (tmp_path / "out" / ROWS).exists()


def test_a_summary_counts_violations_and_holds_them_against_pgd() -> None:
    def row(attack: str, name: str, found_s: float | None, nearest: float) -> AttackRow:
        return AttackRow("c", "n", name, attack, "1 s", found_s, nearest, 1.0, 10)

    rows = [
        row("pgd", "a", 0.5, -1.0),
        row("pgd", "b", None, 2.0),
        row("interval", "a", 0.25, -3.0),
        row("interval", "b", 0.75, -2.0),
    ]
    told = summary(pd.DataFrame(rows)).set_index("attack")
    assert told["found"].to_dict() == {"pgd": 1, "interval": 2}
    assert told["also_by_pgd"].to_dict() == {"pgd": 1, "interval": 1}
    assert told["of_pgd"].to_dict() == {"pgd": 1.0, "interval": 2.0}
    assert told["median_found_s"].to_dict() == {"pgd": 0.5, "interval": 0.5}
    assert told["median_nearest"].to_dict() == {"pgd": 0.5, "interval": -2.5}


@pytest.mark.parametrize("budget", [{}, {"cpu_s": 1.0, "passes": 5}])
def test_a_budget_is_time_or_passes(budget: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="name one of both"):
        AttackBudget(**budget)


def test_an_unknown_attack_is_named(category: Path, tmp_path: Path) -> None:
    words = ["experiment", "attacks", str(category), "--seconds", "1", "--attacks", "pgd,fgsm"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "unknown attack 'fgsm'; known: pgd, cw, odi, interval" in result.output
