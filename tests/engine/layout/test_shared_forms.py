"""Forms, patches and rows that end early where ranks cut features: all as tight as on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import shared_forms_targets
import torch
from examples import rest
from small_networks import Builder, SmallNetwork, attention

from runner.engine.network.graph import Op
from runner.engine.network.prepared import write_prepared
from runner.execute.gang import Ending, RankServer


def image_generator() -> SmallNetwork:
    """Three inputs make an image, which convolutions bring to two outputs."""
    builder = Builder((3,), seed=3)
    x = builder.pointwise(Op.RELU, builder.linear("x", 40))
    x = builder.reshape(builder.pointwise(Op.RELU, builder.linear(x, 4 * 5 * 5)), 4, 5, 5)
    x = builder.pointwise(Op.RELU, builder.conv(x, 4, padding=(1, 1), groups=2))
    x = builder.pointwise(Op.RELU, builder.conv(x, 7, padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.linear(builder.flatten(x), 9))
    return builder.network(builder.linear(x, 2))


def where(network: SmallNetwork, which: str) -> str:
    """The image; that of a convolution that is whole on every rank, and of one that is cut."""
    images = [node.name for node in network.graph.nodes if node.op in (Op.RESHAPE, Op.CONV)]
    return images[["image", "whole", "cut"].index(which)]


def pooled() -> SmallNetwork:
    """One channel of five at a place: others are not seen. Ranks have no even share of channels."""
    builder = Builder((2, 12, 12), seed=5)
    x = builder.pointwise(Op.RELU, builder.conv("x", 3, padding=(1, 1)))
    x = builder.pool(Op.MAXPOOL, builder.conv(x, 3, padding=(1, 1)), (2, 2), (2, 2), (0, 0))
    x = builder.pointwise(Op.ADD, builder.conv(x, 3, padding=(1, 1)), x)
    x = builder.conv(builder.pointwise(Op.RELU, x), 2, (1, 1))
    return builder.network(builder.flatten(x))


def settled(*on_rank: int) -> SmallNetwork:
    """Of each hidden layer, only neurons of one rank of two change their sign."""
    builder, x = Builder((3,), seed=4), "x"
    for rank in on_rank:
        (inputs,) = builder.shape(x)
        bias = torch.zeros(12)
        bias[6 * (1 - rank) :][:6] = 50.0
        x = builder.linear_of(x, builder.random(12, inputs) / inputs**0.5, bias)
        x = builder.pointwise(Op.RELU, x)
    return builder.network(builder.linear(x, 3))


def convolutions() -> SmallNetwork:
    """Of all kinds that patches pass, one of them in groups."""
    builder = Builder((4, 11, 9), seed=2)
    x = builder.conv("x", 5, kernel=(3, 3), padding=(1, 1))
    x = builder.conv(builder.pointwise(Op.RELU, x), 6, kernel=(3, 3), stride=(2, 2))
    x = builder.conv(builder.pointwise(Op.RELU, x), 1, kernel=(2, 2), dilation=(1, 2))
    x = builder.conv(builder.pointwise(Op.RELU, x), 4, kernel=(1, 1))
    x = builder.conv(builder.pointwise(Op.RELU, x), 4, padding=(1, 1), groups=2)
    return builder.network(builder.linear(builder.flatten(x), 2))


def on_ranks(
    server: RankServer, folder: Path, network: SmallNetwork, what: str, ranks: int, **payload: Any
) -> list[dict[str, Any]]:
    prepared = folder / "prepared"
    write_prepared(prepared, network.graph, network.tensors)
    asked = {"prepared": str(prepared), **payload}
    target = f"{shared_forms_targets.__name__}:{what}"
    result = server.run(target, asked, ranks, folder / "gang", timeout_s=100)
    assert result.ended is Ending.FINISHED, result
    assert result.dead_rank is None, result.reports
    reports = [report for report in result.reports if report is not None]
    assert len(reports) == ranks
    return reports


@pytest.mark.parametrize("ranks", [3, *rest(2)])
def test_patches_that_ranks_deal_out_are_those_of_one_rank(
    ranks: int, rank_server: RankServer, tmp_path: Path
) -> None:
    """Also where a rank has none."""
    for answer in on_ranks(
        *(rank_server, tmp_path, convolutions(), "patches_dealt_out", ranks),
        strategy="tp",
        counts=[1, 2, 90],
    ):
        assert len(answer["apart"]) == 5 * 3 * 6
        for what, apart in answer["apart"].items():
            assert apart <= 1e-5, what
        assert answer["own"] < answer["all"]


@pytest.mark.parametrize("radius", [0.02, 0.5])
@pytest.mark.parametrize("which", ["whole", "cut", *rest("image")])
@pytest.mark.parametrize("strategy", ["tp", *rest("fsdp", "sp")])
@pytest.mark.parametrize("ranks", [3, *rest(2)])
def test_rows_end_early_alike_under_every_strategy(
    ranks: int, strategy: str, which: str, radius: float, rank_server: RankServer, tmp_path: Path
) -> None:
    network = image_generator()
    for answer in on_ranks(
        *(rank_server, tmp_path, network, "rows_that_end_early", ranks),
        strategy=strategy,
        radius=radius,
        end=where(network, which),
    ):
        assert answer["ends"] == [where(network, which)] * 2
        if strategy != "tp":
            assert (answer["tighter"], answer["looser"], answer["rows"], answer["slopes"]) == (
                0,
            ) * 4
        # Rows are charged for the greatest sums of a layer, of which each rank sees its own alone.
        assert answer["tighter"] <= 1e-4
        for what in ("looser", "rows", "slopes"):
            assert answer[what] <= 1e-5, (what, answer)
        assert answer["below"] <= 0.0


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("on_rank", [(0,), (0, 1)])
@pytest.mark.parametrize("strategy", ["tp", *rest("fsdp", "sp")])
def test_slopes_are_searched_for_alike_where_a_rank_has_no_unstable_neuron(
    strategy: str, on_rank: tuple[int, ...], rows: int, rank_server: RankServer, tmp_path: Path
) -> None:
    for answer in on_ranks(
        *(rank_server, tmp_path, settled(*on_rank), "mixed_rows", 2),
        strategy=strategy,
        rows=rows,
        radius=1.0,
    ):
        assert answer["gain"] > 0
        assert answer["apart"] <= (1e-5 if strategy == "tp" else 0)


@pytest.mark.parametrize("network", [pooled(), attention()], ids=["pooled", "attention"])
@pytest.mark.parametrize("ranks", [4, *rest(2, 3)])
def test_what_open_specs_see_is_seen_on_all_ranks(
    ranks: int, network: SmallNetwork, rank_server: RankServer, tmp_path: Path
) -> None:
    for answer in on_ranks(
        *(rank_server, tmp_path, network, "reached_neurons", ranks), strategy="tp"
    ):
        assert answer["differ"] == []
        if network.graph.input.shape == (2, 12, 12):
            assert answer["left_out"] > 0
