"""The wide network of the default run: the same everywhere, and what it is there to show."""

from __future__ import annotations

import filecmp
import hashlib
from pathlib import Path

import pytest

from runner import Verified, verify
from runner.contract.vocabulary import Verdict
from runner.execute.gang import RankServer
from runner.training.categories.random_wide import NAME, write_random_wide

STORED = Path(__file__).resolve().parents[2] / "benchmarks" / "random_wide"
SHA256 = "b8af260f9090c5bca24d823f1924aacd6f34f5caf13bd3002362d4de4ebea6c5"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_random_wide(folder)
    return folder


@pytest.mark.slow
def test_the_network_is_the_same_to_the_last_byte(made: Path) -> None:
    network = made / "onnx" / f"{NAME}.onnx"
    assert hashlib.sha256(network.read_bytes()).hexdigest() == SHA256
    assert [path.name for path in network.parent.iterdir()] == [network.name], "and nothing beside"


@pytest.mark.parametrize("name", ["instances.csv", f"vnnlib/{NAME}.vnnlib"])
def test_what_is_stored_is_what_is_made_with_it(made: Path, name: str) -> None:
    assert filecmp.cmp(made / name, STORED / name, shallow=False)


def peak(found: Verified) -> int:
    """Of the rank that held the most."""
    assert found.verdict is Verdict.UNSAT
    return max(rank.peak_tensor_bytes or 0 for rank in found.ranks)


def test_two_ranks_that_share_the_weights_hold_six_tenths_each_with_the_same_bounds(
    made: Path, rank_server: RankServer
) -> None:
    network, specification = made / "onnx" / f"{NAME}.onnx", made / "vnnlib" / f"{NAME}.vnnlib"
    baseline, fsdp, tp = (
        verify(network, specification, timeout=200, strategy=strategy, executor=rank_server)
        for strategy in ("baseline", "fsdp", "tp")
    )
    assert 0 < peak(fsdp) <= 0.6 * peak(baseline)
    assert 0 < peak(tp) <= 0.6 * peak(baseline)
    assert fsdp.outcome.lower_bound == baseline.outcome.lower_bound
    assert tp.outcome.lower_bound == pytest.approx(baseline.outcome.lower_bound, rel=1e-5)
