"""What docs/adding-a-strategy.md says, done: one entry in STRATEGIES, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from device import DEVICE
from safetensors.numpy import load_file

from runner.contract.errors import UsageError
from runner.contract.layout import Axis
from runner.contract.question import Question
from runner.contract.strategy import Strategy
from runner.contract.vocabulary import Cause, Method
from runner.contract.wire import question_to_json, report_from_json
from runner.engine.network.load import prepare
from runner.execute.gang import RankServer
from runner.experiments.experiment import TARGET
from runner.problem.instances import Instance, read_category
from runner.verifiers.strategies import CHECKPOINT, STRATEGIES, strategy_named

REPOSITORY = Path(__file__).resolve().parents[3]
GUIDE = (REPOSITORY / "docs" / "adding-a-strategy.md").read_text(encoding="utf-8")
EXAMPLE = GUIDE.partition("```python\n")[2].partition("```")[0]
ADDED: Strategy = eval(EXAMPLE, {"Strategy": Strategy, "Axis": Axis})


def test_a_new_strategy_is_an_entry_and_is_measured_like_the_others(
    rank_server: RankServer, tmp_path: Path
) -> None:
    row = read_category(REPOSITORY / "benchmarks" / "digits_cnn")[0]
    assert isinstance(row, Instance)
    prepare(row.network, tmp_path / "prepared")
    found, resting = {}, {}
    for strategy, ranks in ((STRATEGIES["baseline"], 1), (ADDED, 2)):
        job = Question(
            network=str(row.network),
            prepared=str(tmp_path / "prepared"),
            property=str(row.property),
            strategy=strategy,
            ranks=ranks,
            timeout_s=60.0,
            method=Method.CROWN,
            device=DEVICE,
            bounds=str(tmp_path / f"{ranks}.safetensors"),
        )
        result = rank_server.run(
            TARGET, question_to_json(job), ranks, tmp_path / f"gang{ranks}", 60
        )
        reports = [report_from_json(report) for report in result.reports if report]
        assert [report.cause for report in reports] == [Cause.INCOMPLETE] * ranks, reports
        found[ranks] = {name: t.tobytes() for name, t in load_file(job.bounds).items()}
        resting[ranks] = max(report.measured.weight_bytes or 0 for report in reports)
    assert found[2] == found[1]
    assert resting[2] < resting[1]


def test_checkpoints_are_an_option_of_every_strategy_of_the_driver() -> None:
    assert strategy_named(f"fsdp{CHECKPOINT}").sharded == STRATEGIES["fsdp"].sharded
    assert strategy_named(f"fsdp{CHECKPOINT}").checkpoint
    with pytest.raises(UsageError, match="only the driver"):
        strategy_named(f"lirpa{CHECKPOINT}")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sharded": frozenset({Axis.FEATURES, Axis.SPECS})}, "features cannot be combined"),
        ({"sharded": frozenset({Axis.WEIGHTS}), "parallel": False}, "one rank has nothing"),
        ({"sharded": frozenset({Axis.FEATURES}), "offload": True}, "column blocks"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_written_down(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Strategy("new", **fields)
