"""The example of docs/adding-an-executor.md runs gangs, and answers a question."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import targets

from runner import verify
from runner.execute.executor import Ending, Executor, Gang

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "adding-an-executor.md"
CATEGORY = REPOSITORY / "benchmarks" / "digits_cnn"


@pytest.fixture(scope="module")
def fresh() -> Executor:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    made: Executor = names["Fresh"]()
    return made


@pytest.fixture(autouse=True)
def _ranks_import_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{Path(__file__).parent}")


def gang(name: str, folder: Path, ranks: int = 1, timeout_s: float = 60.0, **payload: Any) -> Gang:
    target = f"{targets.__name__}:{name}"
    return Gang(target, payload, ranks, folder, timeout_s, grace_s=0.1)


def test_every_rank_gets_the_payload_and_its_report_comes_back(
    fresh: Executor, tmp_path: Path
) -> None:
    result = fresh.submit(gang("echo", tmp_path, ranks=2, colour="red")).result()
    assert result.ended is Ending.FINISHED
    payload = {"colour": "red"}
    assert result.reports == tuple({"rank": rank, "payload": payload} for rank in range(2))


def test_what_does_not_end_is_killed_and_what_dies_is_said(fresh: Executor, tmp_path: Path) -> None:
    late = fresh.submit(gang("sleep", tmp_path / "late", timeout_s=0.5, seconds=60)).result()
    assert (late.ended, late.reports) == (Ending.KILLED_AT_DEADLINE, (None,))
    dead = fresh.submit(gang("signal_self", tmp_path / "dead", rank=0, signal=9)).result()
    assert (dead.ended, dead.reports) == (Ending.RANK_DIED, (None,))


def test_it_answers_a_question_on_two_ranks(fresh: Executor) -> None:
    found = verify(
        CATEGORY / "onnx" / "cnn.onnx",
        CATEGORY / "vnnlib" / "image_15_radius_0.05.vnnlib",
        strategy="fsdp",
        timeout=60,
        executor=fresh,
    )
    assert found.verdict == "unsat"
    assert len(found.ranks) == 2
