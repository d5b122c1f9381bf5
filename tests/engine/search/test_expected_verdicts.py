"""The embedded instances under `baseline`, from file to verdict: never against expected.csv."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from device import DEVICE
from given import given

from runner.contract.question import Question
from runner.contract.vocabulary import Cause, Method, Verdict
from runner.engine.programs.verify import prepare_target, verify_question
from runner.verifiers.strategies import strategy_named

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
WHOLE = ("car_following", "digits_mlp")
EVERY = 4  # of the other categories, one instance in so many
# α-CROWN takes a second or more before it decides these or leaves them open.
SLOW = (
    "cnn image_20_radius_0.11",
    "mixtrain_seed0 image_105_radius_0.06",
    "mlp_2x64 image_0_radius_0.11",
    "mlp_2x64 image_10_radius_0.11",
    "mlp_2x64 image_20_radius_0.15",
    "mlp_4x48 image_0_radius_0.11",
    "mlp_4x48 image_10_radius_0.11",
    "random_4x2048 random_4x2048",
    "resnet image_35_radius_0.02",
)
OPPOSITE = {"sat": Verdict.UNSAT, "unsat": Verdict.SAT}


def chosen() -> list[dict[str, str]]:
    with (BENCHMARKS / "expected.csv").open(encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))
    whole = [row for row in rows if row["category"] in WHOLE]
    others = [row for row in rows if row["category"] not in WHOLE]
    return whole + others[::EVERY]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


def parameter(row: dict[str, str]) -> ParameterSet:
    instance = f"{Path(row['network']).stem} {Path(row['property']).stem}"
    marks = (pytest.mark.slow,) if instance in SLOW else ()
    return pytest.param(row, id=f"{row['category']} {instance}", marks=marks)


@pytest.mark.parametrize("row", [parameter(row) for row in chosen()])
def test_no_verdict_contradicts_what_is_expected(
    row: dict[str, str], prepared: Path, tmp_path: Path
) -> None:
    folder = BENCHMARKS / row["category"]
    network, specification = str(folder / row["network"]), str(folder / row["property"])
    file = prepared / f"{row['category']} {Path(row['network']).name}"
    if not file.exists():
        prepare_target({"network": network, "property": specification, "prepared": str(file)})
    job = Question(
        network=network,
        prepared=str(file),
        property=specification,
        strategy=strategy_named("baseline"),
        ranks=1,
        timeout_s=20.0,
        method=Method.ALPHA_CROWN,
        device=DEVICE,
        counterexample=str(tmp_path / "counterexample.gz"),
    )
    report = verify_question(job)
    assert report.verdict is not OPPOSITE.get(row["verdict"])
    if report.verdict is Verdict.UNSAT:
        assert report.lower_bound is not None
        assert report.lower_bound > 0
    assert report.counterexample is (report.verdict is Verdict.SAT)
    assert (tmp_path / "counterexample.gz").exists() is report.counterexample
    if report.verdict in (Verdict.SAT, Verdict.UNSAT):
        assert report.cause is Cause.NONE
    assert given(report.measured.peak_tensor_bytes) > given(report.measured.weight_bytes) > 0
    assert given(report.measured.load_s) > 0
