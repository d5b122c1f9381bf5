"""The embedded categories are what benchmarks/README.md says they are."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from runner.contract.vocabulary import Cause, Verdict
from runner.problem.files import read_bytes
from runner.problem.instances import Instance, read_category
from runner.problem.property.model import Property
from runner.problem.property.read_property import read_property

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"
CATEGORIES = sorted(path.parent for path in BENCHMARKS.glob("*/instances.csv"))
DIGITS = [folder for folder in CATEGORIES if folder.name.startswith("digits_")]
MEBIBYTE = 2**20

pytestmark = pytest.mark.usefixtures("random_wide")

Key = tuple[str, str, str]
each_category = pytest.mark.parametrize("folder", CATEGORIES, ids=lambda folder: folder.name)
each_digits_category = pytest.mark.parametrize("folder", DIGITS, ids=lambda folder: folder.name)


def instances(path: Path) -> list[Instance]:
    rows = read_category(path)
    assert all(isinstance(row, Instance) for row in rows), rows
    return [row for row in rows if isinstance(row, Instance)]


def expected() -> dict[Key, str]:
    with (BENCHMARKS / "expected.csv").open(encoding="ascii", newline="") as file:
        rows = csv.DictReader(file)
        return {(row["category"], row["network"], row["property"]): row["verdict"] for row in rows}


class Network:
    """The original ONNX file under ONNX Runtime, one input at a time."""

    def __init__(self, path: Path) -> None:
        content = read_bytes(path, Cause.MALFORMED_NETWORK)
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        x = x.reshape(self._input.shape).astype(np.float32)
        (y,) = self._session.run(None, {self._input.name: x})
        return np.asarray(y, dtype=np.float32).reshape(-1)


def networks(folder: Path) -> Iterator[Network]:
    for path in sorted({instance.network for instance in instances(folder)}):
        yield Network(path)


def unsafe(problem: Property, x: NDArray[np.floating], y: NDArray[np.floating]) -> bool:
    return any(
        np.all((case.lower <= x) & (x <= case.upper)) and any(part.holds(y) for part in case.unsafe)
        for case in problem.cases
    )


def test_the_categories_are_there() -> None:
    assert {folder.name for folder in CATEGORIES} >= {"digits_mlp", "digits_cnn", "digits_wide"}


@each_category
def test_every_file_is_listed_and_every_listed_file_exists(folder: Path) -> None:
    rows = instances(folder)
    listed = {row.network for row in rows} | {row.property for row in rows}
    assert listed == {*folder.glob("onnx/*"), *folder.glob("vnnlib/*")}


@each_category
def test_networks_that_are_stored_are_small_files(folder: Path) -> None:
    ignored = (REPOSITORY / ".gitignore").read_text(encoding="ascii").splitlines()
    if f"benchmarks/{folder.name}/onnx/" not in ignored:
        assert all(path.stat().st_size < MEBIBYTE for path in folder.glob("onnx/*"))


@each_category
def test_every_property_fits_its_network(folder: Path) -> None:
    for row in instances(folder):
        problem = read_property(row.property)
        middle = (problem.cases[0].lower + problem.cases[0].upper) / 2
        assert len(Network(row.network)(middle)) == problem.outputs


@each_digits_category
def test_networks_know_the_digits_kept_for_testing(folder: Path) -> None:
    digits = load_digits()
    images, labels = digits.data[::5] / 16, digits.target[::5]
    for network in networks(folder):
        answers = np.array([network(image).argmax() for image in images])
        assert (answers == labels).mean() > 0.9


@each_digits_category
def test_every_box_holds_a_test_image_that_is_classified_right(folder: Path) -> None:
    digits = load_digits()
    for row in instances(folder):
        number = int(row.property.stem.split("_")[1])
        assert number % 5 == 0
        image, label = digits.data[number] / 16, digits.target[number]
        problem = read_property(row.property)
        (case,) = problem.cases
        assert np.all((case.lower <= image) & (image <= case.upper))
        outputs = Network(row.network)(image)
        assert outputs.argmax() == label
        assert not unsafe(problem, image, outputs)


@each_digits_category
def test_a_box_has_the_radius_of_its_name_within_the_range_of_pixels(folder: Path) -> None:
    for path in folder.glob("vnnlib/*"):
        (case,) = read_property(path).cases
        image = load_digits().data[int(path.stem.split("_")[1])] / 16
        radius = float(path.stem.split("_")[3])
        assert np.allclose(case.lower, np.maximum(image - radius, 0), rtol=0, atol=1e-8)
        assert np.allclose(case.upper, np.minimum(image + radius, 1), rtol=0, atol=1e-8)


def test_car_following_is_written_in_vnnlib_2_and_has_a_union_of_boxes() -> None:
    paths = list((BENCHMARKS / "car_following" / "vnnlib").iterdir())
    assert all(path.read_text().startswith("(vnnlib-version <2.0>)") for path in paths)
    assert max(len(read_property(path).cases) for path in paths) == 2


def test_expected_verdicts_are_given_for_every_instance() -> None:
    every = {
        (row.category, row.network_name, row.property_name)
        for folder in CATEGORIES
        for row in instances(folder)
    }
    assert set(expected()) == every
    assert set(expected().values()) <= {Verdict.SAT, Verdict.UNSAT, Verdict.UNKNOWN}


@pytest.mark.slow
def test_no_random_point_contradicts_an_expected_unsat() -> None:
    random, network_of, problem_of = np.random.default_rng(0), cache(Network), cache(read_property)
    verdicts = expected()
    for folder in CATEGORIES:
        for row in instances(folder):
            if verdicts[row.category, row.network_name, row.property_name] == Verdict.UNSAT:
                network, problem = network_of(row.network), problem_of(row.property)
                for case in problem.cases:
                    for x in random.uniform(case.lower, case.upper, (50, problem.inputs)):
                        assert not unsafe(problem, x, network(x)), row.property


def test_the_default_run_takes_a_few_of_each_with_both_verdicts() -> None:
    chosen = instances(REPOSITORY / "instances.csv")
    assert 10 <= len(chosen) <= 18
    assert {row.category for row in chosen} == {folder.name for folder in CATEGORIES}
    listed = {(row.network, row.property): row for f in CATEGORIES for row in instances(f)}
    originals = [listed[row.network, row.property] for row in chosen]
    verdicts = expected()
    found = {verdicts[row.category, row.network_name, row.property_name] for row in originals}
    assert found >= {Verdict.SAT, Verdict.UNSAT}
