"""One instance's whole story, of a run that was really made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runner.contract.errors import InstanceError
from runner.problem.names import matches
from runner.problem.property.model import Case, Conjunction, Property
from runner.record.read import Run, read_run
from runner.report.gather import gather
from runner.report.story import Story, describe_network, describe_property, stories

REPOSITORY = Path(__file__).resolve().parents[2]
STRATEGIES = ["baseline", "fsdp", "tp", "sp", "dp"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The example run, which names its categories as they lie in the repository."""
    monkeypatch.chdir(REPOSITORY)
    return read_run(REPOSITORY / "notebooks" / "example-run")


def story(run: Run, chosen: str) -> Story:
    evidence = gather([run]).only(lambda network, name: matches(network, name, chosen))
    (found,) = stories(run, evidence)
    return found


def test_an_instance_with_a_counterexample(run: Run) -> None:
    told = story(run, "mlp_2x64_image_0_radius_0.15")
    facts = dict(told.facts)

    assert "64 inputs in 1 box" in facts["property"]
    assert "unsafe: 9 disjuncts of 1 constraints on 10 outputs" in facts["property"]
    assert "8,970 parameters" in facts["network"]
    assert "3 Gemm, 2 Relu" in facts["network"]
    for strategy in STRATEGIES:
        assert ": valid; ONNX Runtime's outputs: " in facts[f"{strategy}, counterexample"]


def test_answers_times_and_memory_of_every_rank(run: Run) -> None:
    answers, times, memory, at_peak = story(run, "mlp_2x64_image_0_radius_0.15").grids

    assert [row[0] for row in answers.rows] == STRATEGIES
    assert [row[:2] for row in times.rows][:3] == [("baseline", "0"), ("fsdp", "0"), ("fsdp", "1")]
    assert len(memory.rows) == len(at_peak.rows) == 9


def test_the_title_names_the_instance_in_one_line(run: Run) -> None:
    assert story(run, "*_image_45_*").title == "digits_wide wide_2x1024 image_45_radius_0.15, 60 s"


def test_a_run_whose_categories_are_gone_is_still_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    told = story(run, "mlp_2x64_image_0_radius_0.15")

    assert dict(told.facts)["network"] == "its file is not where the run found it"
    assert "instances.csv" in caplog.text


def test_a_property_in_words() -> None:
    constraint = Conjunction(np.ones((2, 3)), np.zeros(2), np.zeros(2, dtype=bool))
    one = Conjunction(np.ones((1, 3)), np.zeros(1), np.zeros(1, dtype=bool))
    boxes = (
        Case(np.array([0.0, 1.0]), np.array([0.5, 1.0]), (constraint,)),
        Case(np.array([0.0, 0.0]), np.array([0.25, 1.0]), (one,)),
    )

    assert describe_property(Property(2, 3, boxes)) == (
        "2 inputs in 2 boxes of widths 0 to 1 (1 fixed); "
        "unsafe: 2 disjuncts of 1 to 2 constraints on 3 outputs"
    )


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\xff\xff no network")

    with pytest.raises(InstanceError, match=r"net\.onnx: not ONNX"):
        describe_network(tmp_path / "net.onnx")
