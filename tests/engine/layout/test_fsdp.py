"""`fsdp` on real processes: the bits of `baseline`, with 1/P of the weights on each rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsdp_targets
import pytest
from examples import rest, rest_but

from runner.contract.vocabulary import BOUNDS
from runner.engine.network.load import prepare
from runner.execute.gang import Ending, RankServer

ALL = [str(method) for method in BOUNDS]
Ranks = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ranks(rank_server: RankServer, tmp_path: Path) -> Ranks:
    """The reports of all ranks of a gang that runs a target of `fsdp_targets`."""

    def run(target: str, count: int, **payload: Any) -> list[dict[str, Any]]:
        name = f"{fsdp_targets.__name__}:{target}"
        result = rank_server.run(name, payload, count, tmp_path / f"gang{count}", timeout_s=120)
        assert result.ended is Ending.FINISHED, result
        assert result.dead_rank is None, result.reports
        return [report for report in result.reports if report is not None]

    return run


def assert_same_bits(one: dict[str, Any], many: list[dict[str, Any]]) -> None:
    for rank, report in enumerate(many):
        for method, digests in one["digests"].items():
            for name, digest in digests.items():
                assert report["digests"][method][name] == digest, (rank, method, name)
    assert sum(report["weight_bytes"] for report in many) == one["weight_bytes"]
    share, block = one["weight_bytes"] / len(many), max(one["blocks"])
    assert all(abs(report["weight_bytes"] - share) <= block for report in many)
    assert one["sent"] == 0
    assert sum(report["sent"] for report in many) > 0


@pytest.mark.parametrize("least_block_bytes", [64, *rest(1024), 65536])
@pytest.mark.parametrize("network", fsdp_targets.SMALL)
def test_small_networks_in_blocks_of_a_few_columns_or_whole_weights(
    network: str, least_block_bytes: int, ranks: Ranks
) -> None:
    question = {"small": network, "methods": ALL, "least_block_bytes": least_block_bytes}
    (one,) = ranks("bounds", 1, iterations=3, **question)
    for count in (2, 3):
        assert_same_bits(one, ranks("bounds", count, iterations=3, **question))


def test_more_ranks_than_blocks(ranks: Ranks) -> None:
    question = {"small": "mlp", "methods": ALL, "iterations": 3}
    (one,) = ranks("bounds", 1, **question)
    assert len(one["blocks"]) == 4
    many = ranks("bounds", 6, **question)
    assert_same_bits(one, many)
    assert sorted(report["weight_bytes"] > 0 for report in many) == [False] * 2 + [True] * 4


REAL = {
    "mnist_fc 256x2": ("mnist_fc", "mnist-net_256x2", "prop_1_0.03", ALL),
    "mnist_fc 256x4": ("mnist_fc", "mnist-net_256x4", "prop_1_0.03", ALL),
    "mnist_fc 256x6": ("mnist_fc", "mnist-net_256x6", "prop_1_0.03", ALL),
    "oval21 base": ("oval21", "cifar_base_kw", "cifar_base_kw-img8194-*", ALL),
    "oval21 deep": ("oval21", "cifar_deep_kw", "cifar_deep_kw-img3062-*", ALL),
    "oval21 wide": ("oval21", "cifar_wide_kw", "cifar_wide_kw-img1909-*", ALL),
    "sri_resnet_a": ("sri_resnet_a", "resnet_3b2*", "cifar10_spec_idx_1551_*", ALL[:2]),
}


@pytest.mark.parametrize("name", rest_but(("mnist_fc 256x2", "oval21 base").__contains__, REAL))
def test_networks_of_the_competition(
    name: str, ranks: Ranks, vnncomp2022: Path, tmp_path: Path
) -> None:
    category, network, instance, methods = REAL[name]
    folder = vnncomp2022 / "benchmarks" / category
    (path,) = (folder / "onnx").glob(f"{network}.onnx*")
    (specification,) = (folder / "vnnlib").glob(f"{instance}.vnnlib*")
    prepare(path, tmp_path / "prepared")
    question = {"prepared": str(tmp_path / "prepared"), "property": str(specification)}
    (one,) = ranks("bounds", 1, methods=methods, iterations=3, **question)
    for count in (2, 3):
        many = ranks("bounds", count, methods=methods, iterations=3, **question)
        assert_same_bits(one, many)


def test_rank_0_decides_and_a_sender_counts_its_bytes_for_each_receiver(ranks: Ranks) -> None:
    reports = ranks("decisions", 3)
    assert [report["decided"] for report in reports] == [[True, False]] * 3
    assert [report["tensor"] for report in reports] == [[2.0] * 3] * 3
    assert [report["collectives"] for report in reports] == [3] * 3
    assert [report["bytes"] for report in reports] == [2 * 2, 0, 2 * 12]
    assert all(report["seconds"] > 0 for report in reports)


def test_one_rank_decides_for_itself_and_says_nothing(ranks: Ranks) -> None:
    (report,) = ranks("decisions", 1)
    assert report["decided"] == [True, False]
    assert (report["bytes"], report["collectives"], report["seconds"]) == (0, 0, 0)


@pytest.mark.parametrize(("rank_0", "others", "reached"), [(0, 1e6, True), (1e6, 0, False)])
def test_the_clock_of_rank_0_is_the_deadline_of_all(
    rank_0: float, others: float, reached: bool, ranks: Ranks
) -> None:
    reports = ranks("deadline", 3, rank_0=rank_0, others=others)
    assert reports == [{"reached": reached, "half": reached}] * 3
