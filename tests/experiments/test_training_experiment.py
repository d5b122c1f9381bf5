"""`train` makes categories that `experiment training` verifies and compares."""

from __future__ import annotations

import csv
import filecmp
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from recipes import tiny
from runner.cli.app import app
from runner.experiments.training_experiment import summary
from runner.problem.instances import Instance, read_category
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.read_property import read_property
from runner.record.lock import exclusive
from runner.report.training import training_table, with_spread
from runner.training.data import data_set

RADII = "radii = [0.03]"

pytestmark = pytest.mark.usefixtures("warm")


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def home(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a recipe whose networks are trained, labelled and compared."""
    folder = tmp_path_factory.mktemp("recipes")
    recipe, out = tiny(folder, radii=RADII), folder / "out"
    said = call("train", recipe, "--out", out, "--label")
    assert "standard_seed0: accuracy " in said
    assert "nbc_seed0: accuracy " in said
    call("experiment", "training", recipe, "--out", out)
    return out / "tiny"


def instances(category: Path) -> list[Instance]:
    return [row for row in read_category(category) if isinstance(row, Instance)]


def test_a_category_has_images_of_every_class_that_each_network_classifies_right(
    home: Path,
) -> None:
    data = data_set("digits")
    rows = instances(home / "tiny")
    assert len(rows) > 10
    for row in rows:
        _, image, _, radius = row.property.stem.split("_")
        assert int(image) in data.test.tolist()
        pixels, label = data.images[int(image)].numpy(), int(data.labels[int(image)])
        assert OnnxRuntime(row.network).run(pixels).argmax() == label
        (case,) = read_property(row.property).cases
        assert case.upper.max() <= 1
        assert (case.upper - case.lower).max() == pytest.approx(2 * float(radius), abs=1e-6)
    listed = {row.property for row in rows}
    assert listed == set((home / "tiny" / "vnnlib").iterdir())
    labels = {int(data.labels[int(path.stem.split("_")[1])]) for path in listed}
    assert len(labels) >= 9, "networks of six epochs may know none of one class"


def test_labels_are_given_for_every_instance_and_hold_both_verdicts(home: Path) -> None:
    with (home / "tiny" / "expected.csv").open() as file:
        known = list(csv.DictReader(file))
    rows = instances(home / "tiny")
    assert [(k["network"], k["property"]) for k in known] == [
        (row.network_name, row.property_name) for row in rows
    ]
    assert {k["verdict"] for k in known} >= {"sat", "unsat"}


def test_a_category_is_made_again_to_the_last_byte(home: Path, tmp_path: Path) -> None:
    call("train", tiny(tmp_path, radii=RADII), "--out", tmp_path)
    made, again = home / "tiny", tmp_path / "tiny" / "tiny"
    files = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert len(files) > 10
    _, differ, missing = filecmp.cmpfiles(made, again, list(map(str, files)), shallow=False)
    assert not differ
    assert not missing


def test_the_table_has_a_row_for_each_method_and_radius(home: Path) -> None:
    table = pd.read_csv(home / "report" / "training.csv")
    found = list(zip(table["method"], table["radius"], strict=True))
    assert found == [("standard", 0.03), ("nbc", 0.03)]
    assert table["speed_up"][0] == 1
    assert table["stable"].between(0, 1).all()
    assert table["stable"][1] > table["stable"][0], "what nbc is for"
    assert (table["verified_accuracy"] <= table["unsat"]).all()
    assert (table["unsat"] + table["sat"] <= 1).all()
    assert (table["training_peak_bytes"] > 0).all()


@pytest.mark.parametrize("name", ["training.md", "training.tex", "training.html"])
def test_tables_name_every_method(home: Path, name: str) -> None:
    text = (home / "report" / name).read_text(encoding="utf-8")
    assert "standard" in text
    assert "nbc" in text


@pytest.mark.parametrize("plot", ["over_radius", "time_against_accuracy"])
def test_plots_are_drawn(home: Path, plot: str) -> None:
    assert (home / "report" / f"{plot}.png").stat().st_size > 1000
    assert "<svg" in (home / "report" / f"{plot}.svg").read_text(encoding="utf-8")


def test_a_summary_counts_timeouts_at_their_limit_and_speed_on_shared_questions() -> None:
    rows = pd.DataFrame(
        {
            "network": ["a", "a", "b", "b"],
            "method": ["standard", "standard", "nbc", "nbc"],
            "seed": 0,
            "radius": 0.1,
            "strategy": "baseline",
            "property": ["p", "q", "q", "r"],
            "verdict": ["timeout", "unsat", "unsat", "sat"],
            "time_s": [60.0, 8.0, 2.0, 1.0],
            "cpu_s": [60.0, 7.5, 1.5, 0.5],
            "proving_s": [60.0, 6.0, 1.0, 0.0],
            "stable": [0.5, 0.7, 0.9, 0.7],
            "images": 4,
            "clean_accuracy": 0.9,
            "pgd_accuracy": 0.8,
            "training_s": 1.0,
            "training_peak_bytes": 10,
        }
    )
    standard, nbc = summary(rows).to_dict("records")
    assert (standard["mean_s"], standard["median_s"], standard["unsat"]) == (34, 34, 0.5)
    assert standard["speed_up"] == 1
    assert nbc["speed_up"] == 4, "only q was asked of both"
    assert nbc["cpu_speed_up"] == 5
    assert nbc["proving_speed_up"] == 6
    assert nbc["verified_accuracy"] == 0.25
    assert nbc["stable"] == pytest.approx(0.8)


def of_seeds() -> pd.DataFrame:
    """`nbc` beats `standard` four times with seed 0 and twice with seed 1, and proves less."""
    return pd.DataFrame(
        {
            "network": ["a0", "a1", "b0", "b1", "b1"],
            "method": ["standard", "standard", "nbc", "nbc", "nbc"],
            "seed": [0, 1, 0, 1, 1],
            "radius": 0.1,
            "strategy": "baseline",
            "property": ["p", "p", "p", "p", "q"],
            "verdict": ["unsat", "unsat", "unsat", "sat", "unsat"],
            "time_s": [8.0, 4.0, 2.0, 2.0, 9.0],
            "cpu_s": [8.0, 4.0, 2.0, 2.0, 9.0],
            "proving_s": [8.0, 4.0, 2.0, 2.0, 9.0],
            "stable": [0.5, 0.5, 1.0, 0.4, 0.7],
            "images": 2,
            "clean_accuracy": [0.9, 0.8, 0.9, 0.7, 0.7],
            "pgd_accuracy": 0.5,
            "training_s": [1.0, 3.0, 5.0, 6.0, 6.0],
            "training_peak_bytes": 10,
        }
    )


def test_a_summary_is_over_all_seeds_and_tells_the_least_and_the_greatest_of_them() -> None:
    standard, nbc = summary(of_seeds()).to_dict("records")
    assert (standard["networks"], nbc["networks"], nbc["instances"]) == (2, 2, 3)
    assert nbc["clean_accuracy"] == pytest.approx(0.8), "by networks, not by questions"
    assert (nbc["clean_accuracy_least"], nbc["clean_accuracy_most"]) == (0.7, 0.9)
    assert (nbc["verified_accuracy"], nbc["verified_accuracy_least"]) == (0.5, 0.5)
    assert nbc["stable"] == pytest.approx(0.7)
    assert (nbc["stable_least"], nbc["stable_most"]) == (pytest.approx(0.55), 1)
    assert nbc["speed_up"] == 3, "q was asked of nbc alone"
    assert (nbc["speed_up_least"], nbc["speed_up_most"]) == (2, 4)
    assert nbc["proving_speed_up"] == 4, "with seed 1 p is violated, and no proof"
    assert (standard["training_s"], standard["training_s_most"]) == (2, 3)


def test_a_table_has_the_spread_over_seeds_beside_what_differs() -> None:
    (_, nbc) = with_spread(training_table("x", summary(of_seeds()))).rows
    assert "80.0 % (70.0 % to 90.0 %)" in nbc
    assert "3.00× (2.00× to 4.00×)" in nbc
    assert "50.0 %" in nbc, "both seeds have this accuracy under PGD"


def test_a_network_without_a_question_has_a_row_and_proves_nothing() -> None:
    row = {"network": "a", "method": "nbc", "seed": 0, "radius": 0.1, "images": 10}
    row |= {"clean_accuracy": 0.1, "pgd_accuracy": 0.0, "training_s": 1.0}
    nothing = dict.fromkeys(
        ["strategy", "property", "verdict", "time_s", "cpu_s", "proving_s", "stable"]
    )
    rows = pd.DataFrame([{**row, "training_peak_bytes": 1, **nothing}])
    (found,) = summary(rows).to_dict("records")
    assert (found["instances"], found["verified_accuracy"]) == (0, 0)
    assert pd.isna(found["unsat"])


def test_an_experiment_without_standard_has_no_speed_up() -> None:
    columns = ("network", "method", "property", "verdict", "strategy")
    row = {**dict.fromkeys(columns, "x"), "seed": 0, "radius": 0.1, "time_s": 1.0}
    row |= {"cpu_s": 1.0, "proving_s": 1.0, "stable": 1.0, "images": 1}
    row |= {"clean_accuracy": 1, "pgd_accuracy": 1}
    row |= {"training_s": 1.0, "training_peak_bytes": 1}
    assert pd.isna(summary(pd.DataFrame([row]))["speed_up"][0])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"epochs": "epoch = 3"}, "unknown key training.epoch"),
        ({"name": 'name = "cifar"'}, "unknown data 'cifar'"),
        ({"radii": "radii = [0.1]\nimages = 90"}, "category.images = 90: class"),
    ],
)
def test_wrong_recipes_are_exit_code_2_before_anything_is_trained(
    tmp_path: Path, line: dict[str, str], said: str
) -> None:
    good, bad = tiny(tmp_path, "good"), tiny(tmp_path, "bad", **line)
    assert said in call("train", good, bad, "--out", tmp_path / "out", code=2)
    assert not list((tmp_path / "out").rglob("*.pt"))


def test_two_trainings_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    recipe = tiny(tmp_path)
    with exclusive(tmp_path / "out" / "tiny"):
        said = call("train", recipe, "--out", tmp_path / "out", code=2)
    assert "is in use by another run" in said
