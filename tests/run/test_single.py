"""`from runner import verify`: one question, from a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import runner
from runner import verify
from runner.contract.errors import UsageError
from runner.contract.vocabulary import Cause, Verdict
from runner.execute.gang import RankServer

MLP = Path(__file__).resolve().parents[2] / "benchmarks" / "digits_mlp"
NETWORK = MLP / "onnx" / "mlp_2x64.onnx"
TRUE, FALSE = (MLP / "vnnlib" / f"image_0_radius_{radius}.vnnlib" for radius in (0.04, 0.15))


@pytest.mark.parametrize(("strategy", "ranks"), [("baseline", 1), ("fsdp", 2)])
def test_a_property_that_holds_is_unsat_and_every_rank_says_what_it_cost(
    strategy: str, ranks: int, rank_server: RankServer
) -> None:
    found = verify(NETWORK, TRUE, timeout=60, strategy=strategy, ranks=2, executor=rank_server)
    assert found.verdict is Verdict.UNSAT
    assert len(found.ranks) == ranks
    assert all(rank.wall_s and rank.peak_tensor_bytes for rank in found.ranks)
    assert found.counterexample is None


def test_a_counterexample_comes_with_sat(rank_server: RankServer) -> None:
    found = verify(str(NETWORK), str(FALSE), timeout=60, executor=rank_server)
    assert found.verdict is Verdict.SAT
    assert found.counterexample is not None
    inputs, outputs = found.counterexample
    assert (len(inputs), len(outputs)) == (64, 10)


def test_files_that_are_wrong_are_an_outcome(tmp_path: Path, rank_server: RankServer) -> None:
    found = verify(tmp_path / "none.onnx", TRUE, timeout=60, executor=rank_server)
    assert (found.verdict, found.outcome.cause) == (Verdict.ERROR, Cause.MISSING_FILE)
    assert "none.onnx" in found.outcome.message


@pytest.mark.parametrize(
    "wrong",
    [{"strategy": "fast"}, {"method": "magic"}, {"device": "abacus"}, {"timeout": 0.0}],
)
def test_words_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        verify(NETWORK, TRUE, **wrong)


def test_the_package_has_no_other_public_names() -> None:
    assert set(runner.__all__) == {"verify", "Verified"}
    with pytest.raises(AttributeError, match="verfy"):
        _ = runner.verfy
