"""Input split on several ranks: the same boxes, and so the same verdict, as on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from device import DEVICE
from given import given
from small_networks import SmallNetwork, lattice, mlp, multiplied, points_in
from small_onnx import save_small, save_true_property

from runner.contract.question import Question, Report
from runner.contract.vocabulary import Verdict
from runner.contract.wire import question_to_json, report_from_json
from runner.engine.bounds.interval import Interval
from runner.engine.network.load import prepare
from runner.execute.gang import Ending, RankServer
from runner.verifiers.strategies import strategy_named

TARGET = "runner.engine.programs.verify:verify_target"


@pytest.fixture
def acasxu(vnncomp2022: Path, tmp_path: Path) -> dict[str, str]:
    """prop_1 on network 1_1: about a hundred boxes."""
    root = vnncomp2022 / "benchmarks" / "acasxu"
    (network,) = (root / "onnx").glob("ACASXU_run2a_1_1_*.onnx*")
    (prop,) = (root / "vnnlib").glob("prop_1.vnnlib*")
    prepare(network, tmp_path / "prepared")
    return {
        "network": str(network),
        "property": str(prop),
        "prepared": str(tmp_path / "prepared"),
        "progress": str(tmp_path / "progress.csv"),
    }


def verified(
    server: RankServer,
    files: dict[str, Any],
    strategy: str,
    ranks: int,
    folder: Path,
    timeout_s: float = 60.0,
) -> list[Report]:
    chosen = strategy_named(strategy)
    job = Question(**files, strategy=chosen, ranks=ranks, timeout_s=timeout_s, device=DEVICE)
    result = server.run(TARGET, question_to_json(job), ranks, folder, timeout_s=timeout_s)
    assert result.ended is Ending.FINISHED, result
    return [report_from_json(report) for report in result.reports if report is not None]


def test_every_strategy_bounds_the_same_boxes(
    rank_server: RankServer, acasxu: dict[str, str], tmp_path: Path
) -> None:
    (one,) = verified(rank_server, acasxu, "baseline", 1, tmp_path / "one")
    assert (one.verdict, one.method) == (Verdict.UNSAT, "input-split")
    assert given(one.measured.domains) > given(one.measured.rounds) > 1
    assert given(one.measured.complete_s) > 0
    history = Path(acasxu["progress"]).read_text().splitlines()
    assert len(history) == given(one.measured.rounds) + 1
    for strategy in ("fsdp", "tp", "sp", "fsdp+sp"):
        reports = verified(rank_server, acasxu, strategy, 2, tmp_path / strategy)
        assert len(reports) == 2
        for report in reports:
            assert report.verdict == one.verdict, strategy
            for name in ("domains", "rounds", "depth"):
                assert getattr(report.measured, name) == getattr(one.measured, name), strategy
            if strategy != "tp":
                assert report.lower_bound == one.lower_bound, strategy


def test_few_inputs_among_fixed_decimals_are_halved(
    rank_server: RankServer, vnncomp_later: Path, tmp_path: Path
) -> None:
    """dist_shift: eight inputs vary beside an image; neuron splits left this one open."""
    root = vnncomp_later / "vnncomp2023" / "dist_shift"
    (network,) = (root / "onnx").glob("mnist_concat.onnx*")
    (prop,) = (root / "vnnlib").glob("index3187_delta0.13.vnnlib*")
    prepare(network, tmp_path / "prepared")
    prepared = str(tmp_path / "prepared")
    files = {"network": str(network), "property": str(prop), "prepared": prepared}
    (one,) = verified(rank_server, files, "baseline", 1, tmp_path / "one")
    assert (one.verdict, one.method) == (Verdict.UNSAT, "input-split")
    assert 1 < given(one.measured.domains) < 100
    for strategy in ("fsdp", "sp"):
        for report in verified(rank_server, files, strategy, 2, tmp_path / strategy):
            assert report.verdict is Verdict.UNSAT, strategy
            assert report.lower_bound == one.lower_bound, strategy


@pytest.mark.exhaustive
def test_boxes_that_are_bounded_alone_are_the_same_under_every_strategy(
    rank_server: RankServer, vnncomp_later: Path, tmp_path: Path
) -> None:
    """cifar_biasfield: rows of the last layer end where specs say so, and α follows."""
    root = vnncomp_later / "vnncomp2022" / "cifar_biasfield"
    (network,) = (root / "onnx").glob("cifar_bias_field_48.onnx*")
    (prop,) = (root / "vnnlib").glob("prop_48.vnnlib*")
    prepare(network, tmp_path / "prepared")
    prepared = str(tmp_path / "prepared")
    files = {"network": str(network), "property": str(prop), "prepared": prepared}
    (one,) = verified(rank_server, files, "baseline", 1, tmp_path / "one", timeout_s=300)
    assert (one.verdict, one.method) == (Verdict.UNSAT, "input-split")
    for strategy in ("fsdp", "sp", "tp"):
        for report in verified(rank_server, files, strategy, 2, tmp_path / strategy, timeout_s=300):
            assert report.verdict is Verdict.UNSAT, strategy
            assert report.measured.domains == one.measured.domains, strategy
            if strategy != "tp":
                assert report.lower_bound == one.lower_bound, strategy


@pytest.mark.parametrize("strategy", ["dp", "sp+dp", "fsdp+dp"])
def test_ranks_that_share_the_boxes_have_the_verdict_and_about_as_many(
    rank_server: RankServer, acasxu: dict[str, str], tmp_path: Path, strategy: str
) -> None:
    (one,) = verified(rank_server, acasxu, "baseline", 1, tmp_path / "one")
    reports = verified(rank_server, acasxu, strategy, 2, tmp_path / strategy)
    assert [(report.verdict, report.method) for report in reports] == [
        (Verdict.UNSAT, "input-split")
    ] * 2
    shares = [given(report.measured.domains) for report in reports]
    assert min(shares) > 0
    assert 0.5 < sum(shares) / given(one.measured.domains) < 2
    assert len({report.lower_bound for report in reports}) == 1


@pytest.mark.parametrize("network", [lattice(128), multiplied(5)], ids=["forms", "curves"])
def test_every_strategy_bounds_the_same_boxes_without_rows(
    rank_server: RankServer, tmp_path: Path, network: SmallNetwork
) -> None:
    file = save_small(tmp_path / "network.onnx", network)
    prepare(file, tmp_path / "prepared")
    files = {
        "network": str(file),
        "property": str(save_true_property(tmp_path / "p.vnnlib", network, 1.0, 0.1)),
        "prepared": str(tmp_path / "prepared"),
    }
    (one,) = verified(rank_server, files, "baseline", 1, tmp_path / "one")
    assert (one.verdict, one.method) == (Verdict.UNSAT, "input-split")
    assert given(one.measured.domains) > 1
    for strategy in ("fsdp", "sp", "tp"):
        for report in verified(rank_server, files, strategy, 2, tmp_path / strategy):
            assert report.verdict is Verdict.UNSAT, strategy
            if strategy != "tp":
                assert report.measured.domains == one.measured.domains, strategy
                assert report.lower_bound == one.lower_bound, strategy


@pytest.mark.parametrize("above", [0.05, -0.05], ids=["unsat", "sat"])
def test_many_boxes_are_halved_alike_under_every_strategy(
    rank_server: RankServer, tmp_path: Path, above: float
) -> None:
    """`above`: by how much the least value of any box is above the limit of that box."""
    network = mlp(2, 16, 16, 1)
    file = save_small(tmp_path / "network.onnx", network)
    prepare(file, tmp_path / "prepared")
    files = {
        "network": str(file),
        "property": str(save_boxes(tmp_path / "p.vnnlib", network, above)),
        "prepared": str(tmp_path / "prepared"),
        "counterexample": str(tmp_path / "counterexample.gz"),
    }
    expected = Verdict.UNSAT if above > 0 else Verdict.SAT
    (one,) = verified(rank_server, files, "baseline", 1, tmp_path / "one")
    assert one.verdict is expected
    for strategy in ("fsdp", "sp", "tp", "dp", "fsdp+dp"):
        for report in verified(rank_server, files, strategy, 2, tmp_path / strategy):
            assert report.verdict is expected, strategy
            if strategy in {"fsdp", "sp"} and expected is Verdict.UNSAT:
                assert report.measured.domains == one.measured.domains, strategy
                assert report.lower_bound == one.lower_bound, strategy


def save_boxes(path: Path, network: SmallNetwork, above: float) -> Path:
    """Twelve boxes, in each of which a small output is unsafe."""
    choices = []
    for number in range(12):
        middle = -1 + number / 6
        box = Interval(torch.tensor([[middle - 0.3, -0.3]]), torch.tensor([[middle + 0.3, 0.3]]))
        least = float(network.outputs(points_in(box, 2000).double()[:, 0]).min())
        limits = (
            f"(<= X_{index} {high}) (>= X_{index} {low})"
            for index, (low, high) in enumerate(
                zip(box.lower[0].tolist(), box.upper[0].tolist(), strict=True)
            )
        )
        choices.append(f"(and {' '.join(limits)} (<= Y_0 {least - above}))")
    declared = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)\n"
    path.write_text(f"{declared}(assert (or {' '.join(choices)}))\n")
    return path
