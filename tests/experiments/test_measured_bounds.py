"""What a rank of an experiment reports when its bounds do not come to an end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device import DEVICE
from given import given

from runner.contract.question import Question
from runner.contract.shell import MeasuredFailure
from runner.contract.vocabulary import Cause, Method
from runner.contract.wire import question_to_json, report_from_json
from runner.engine.layout.blocked_weights import BlockedWeights
from runner.engine.network.load import prepare
from runner.engine.programs.measured_bounds import bounds_target
from runner.verifiers.strategies import strategy_named

CATEGORY = Path(__file__).resolve().parents[2] / "benchmarks" / "digits_mlp"


@pytest.fixture
def job(tmp_path: Path) -> Question:
    network = sorted((CATEGORY / "onnx").glob("*.onnx"))[0]
    prepare(network, tmp_path / "prepared")
    return Question(
        network=str(network),
        prepared=str(tmp_path / "prepared"),
        property=str(sorted((CATEGORY / "vnnlib").glob("*.vnnlib"))[0]),
        strategy=strategy_named("baseline"),
        ranks=1,
        timeout_s=60.0,
        method=Method.CROWN,
        device=DEVICE,
        bounds=str(tmp_path / "bounds.safetensors"),
    )


def test_a_deadline_leaves_what_was_measured_until_then(job: Question) -> None:
    report = report_from_json(bounds_target(question_to_json(replace(job, timeout_s=0.0))))
    assert report.cause is Cause.DEADLINE
    assert given(report.measured.wall_s) > 0
    assert given(report.measured.peak_tensor_bytes) > 0


def test_so_does_a_failure(job: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(BlockedWeights, "products", fail)
    with pytest.raises(MeasuredFailure) as failure:
        bounds_target(question_to_json(job))
    assert isinstance(failure.value.__cause__, MemoryError)
    assert given(failure.value.measured.peak_tensor_bytes) > 0
