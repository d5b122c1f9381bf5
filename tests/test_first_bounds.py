"""Every network of VNN-COMP's categories has a linear bound of its specs soon, on one core."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from runner.problem.instances import Instance, read_category

SECONDS = 10
# Of networks that have none by then, the reason.
REASONS = {
    "patch-1": "of cctsdb_yolo: a pass over its 290,000 values takes longer",
}


def first_rows(category: Path, folder: Path) -> Path:
    """A category of the first instance of each network."""
    first: dict[Path, Instance] = {}
    for row in read_category(category):
        if isinstance(row, Instance):
            first.setdefault(row.network, row)
    chosen = folder / category.parent.name / category.name
    chosen.mkdir(parents=True)
    with (chosen / "instances.csv").open("w", newline="") as file:
        for row in first.values():
            csv.writer(file).writerow((row.network, row.property, SECONDS))
    return chosen


def bounded(row: dict[str, str]) -> bool:
    return row["verdict"] in ("sat", "unsat") or (
        bool(row["lower_bound"]) and row["method"] not in ("", "ibp")
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("year", ["vnncomp2022", "vnncomp2023", "vnncomp2024"])
def test_a_linear_bound_is_there_within_ten_seconds(
    year: str, vnncomp_later: Path, tmp_path: Path
) -> None:
    categories = [first_rows(path, tmp_path) for path in sorted((vnncomp_later / year).iterdir())]
    command = (sys.executable, "-m", "runner.cli", "run", *map(str, categories))
    options = ("--strategies", "baseline", "--method", "crown", "--results", str(tmp_path))
    subprocess.run([*command, *options, "--run", "run"], check=True, capture_output=True)
    with (tmp_path / "run" / "outcomes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= len(categories)
    without = {Path(row["network"]).stem.removesuffix(".onnx") for row in rows if not bounded(row)}
    assert without <= REASONS.keys()
